"""Whole training updates, ours and the peers', side by side: `python -m benchmarks.training --help`.

Every worker is a process of its own. They take turns, a few updates each, round after round, so that a slow minute of
the machine hits all of them; whoever has no turn is stopped, so that nothing is read ahead at another's expense.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import pathlib
import platform
import statistics
from typing import NamedTuple, Optional

import psutil

from benchmarks import inputs
from benchmarks.peers import environment
from benchmarks.settings import Settings
from benchmarks.worker_process import WorkerProcess
from bert_pretrain.config.model import ModelConfig

_ROOT = pathlib.Path(__file__).parents[1]
_PEER = "benchmarks.peers"
WORKERS = {
    "ours": "benchmarks.ours",
    "ours_float32": "benchmarks.ours",
    "ours_float16": "benchmarks.ours",
    "ours_bfloat16": "benchmarks.ours",
    "google": f"{_PEER}.google",
    "hugging_face": f"{_PEER}.hugging_face",
    "hugging_face_masked": f"{_PEER}.hugging_face",
    "hugging_face_compiled": f"{_PEER}.hugging_face",
    "intel_extension": f"{_PEER}.intel_extension",
}
# Worker -> packages that it needs in our environment besides ours. The picture needs matplotlib.
PACKAGES = {
    "google": ("bert",),
    **{name: ("torch", "transformers") for name in WORKERS if name.startswith("hugging_face")},
}
OURS = tuple(name for name, module in WORKERS.items() if module == "benchmarks.ours")
# Neither what not every CPU has, nor what needs gigabytes of an environment of its own.
_DEFAULT_WORKERS = ",".join(name for name in WORKERS if name not in (*OURS[1:], *environment.OWN))
# Name -> model JSON, tokens of a record, predictions of a record.
MODELS = {
    "tiny-128": ("tiny", 128, 20),
    "mini-512": ("mini", 512, 76),
    "small-512": ("small", 512, 76),
    "base-128": ("base", 128, 20),
    "base-512": ("base", 512, 76),
}


class Round(NamedTuple):
    """One worker's turn."""

    seconds: list[float]
    examples: list[int]
    losses: list[float]
    stolen_share: float  # of the machine's time, by other guests of its host
    utilization: Optional[float]  # useful FLOPs over the matmul rate measured around the turn; ours only
    matmul_flops: Optional[float]  # that rate, FLOP/s


class Worker(WorkerProcess):
    """A running worker process that trains."""

    def __init__(self, name: str, settings: Settings, directory: pathlib.Path) -> None:
        super().__init__(name, WORKERS[name], settings, directory)
        self.rounds: list[Round] = []
        self.peak_memory_bytes = 0
        self.first_loss = self.ask(do="first_loss")["loss"]
        self.warm_up_seconds: list[float] = []

    def warm_up(self, num_steps: int) -> None:
        """Untimed but reported: compiling, first allocations, filling of buffers."""
        answer = self.ask(do="steps", count=num_steps)
        self.warm_up_seconds = [step[0] for step in answer["steps"]]
        self.peak_memory_bytes = answer["peak_memory_bytes"]

    def take_turn(self, num_steps: int) -> None:
        before = psutil.cpu_times()
        answer = self.ask(do="steps", count=num_steps)
        spent = [after - start for after, start in zip(psutil.cpu_times(), before)]  # of all processors; [7] is steal
        seconds, examples, losses, flops = (list(column) for column in zip(*answer["steps"]))
        rate = answer["matmul_flops"]
        utilization = sum(flops) / sum(seconds) / rate if rate else None
        self.rounds.append(Round(seconds, examples, losses, spent[7] / max(0.01, sum(spent[:8])), utilization, rate))
        self.peak_memory_bytes = answer["peak_memory_bytes"]


def compare(settings: Settings, names: list[str], directory: pathlib.Path, arguments: argparse.Namespace) -> list[dict]:
    """Runs these workers on one job, round by round; a result for each."""
    workers: list[Worker] = []
    try:
        for name in names:
            _require_memory(workers)
            workers.append(Worker(name, settings, directory))
            workers[-1].warm_up(_num_steps(name, arguments))
            workers[-1].pause()
        for _ in range(arguments.rounds):
            for worker in workers:
                worker.wake()
                worker.take_turn(_num_steps(worker.name, arguments))
                worker.pause()
    finally:
        for worker in workers:
            worker.end()
    _check_first_losses(workers)
    return [_result(worker) for worker in workers]


def _num_steps(name: str, arguments: argparse.Namespace) -> int:
    """Updates of a turn. Ours differ in length, so it takes more: each time those that its warm-up compiled."""
    return arguments.own_steps_per_round if name in OURS else arguments.steps_per_round


def _require_memory(running: list[Worker]) -> None:
    """Leaves off before the next worker would take memory that is not there, if it is like those before it."""
    needed = max((worker.peak_memory_bytes for worker in running), default=0)
    available = psutil.virtual_memory().available
    if available < needed:
        raise RuntimeError(
            f"{available / 2**30:.1f} GiB of memory are left and the largest worker so far took "
            f"{needed / 2**30:.1f}; run fewer of them at once (--at_once) or free memory"
        )


def _groups(names: list[str], at_once: int) -> list[list[str]]:
    """The first worker is in every group, so that each other one has been measured beside it."""
    first, *others = names
    size = at_once - 1
    return [[first, *others[start : start + size]] for start in range(0, len(others), size)] or [[first]]


def _check_first_losses(workers: list[Worker]) -> None:
    """All networks must be the same function, or their speeds say nothing."""
    losses = {worker.name: worker.first_loss for worker in workers}
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise RuntimeError(f"the workers disagree on the first loss: {losses}")


def _result(worker: Worker) -> dict:
    rates = [sum(turn.examples) / sum(turn.seconds) for turn in worker.rounds]
    seconds = [value for turn in worker.rounds for value in turn.seconds]
    return {
        "worker": worker.name,
        "examples_per_second": statistics.median(rates),
        "examples_per_second_least": min(rates),
        "examples_per_second_most": max(rates),
        "step_seconds_median": statistics.median(seconds),
        "first_loss": worker.first_loss,
        "mean_loss": statistics.fmean(loss for turn in worker.rounds for loss in turn.losses),
        "peak_memory_bytes": worker.peak_memory_bytes,
        "startup_seconds": worker.started["startup_seconds"],
        "warm_up_seconds": worker.warm_up_seconds,
        "utilization": statistics.median(turn.utilization for turn in worker.rounds) if worker.name in OURS else None,
        "stolen_share": statistics.fmean(turn.stolen_share for turn in worker.rounds),
        "versions": worker.started["versions"],
        "rounds": [turn._asdict() for turn in worker.rounds],
    }


def prepare(
    model: str, lengths: str, arguments: argparse.Namespace, directory: pathlib.Path, knows_frequencies: bool = False
) -> Settings:
    """Writes the model's JSON, its first weights (see make_weights) and the shards, and tells where they are."""
    name, seq_length, max_predictions = MODELS[model]
    values = json.loads((_ROOT / "configs" / "model" / f"{name}.json").read_text())
    if arguments.dropout is not None:
        values.update(hidden_dropout_prob=arguments.dropout, attention_probs_dropout_prob=arguments.dropout)
    config_path = directory / f"{name}.json"
    weights = directory / (f"{name}-frequencies.npz" if knows_frequencies else f"{name}.npz")
    config_path.write_text(json.dumps(values))
    if not weights.exists():
        inputs.make_weights(str(weights), ModelConfig.from_json(str(config_path)), knows_frequencies)
    shards = inputs.make_shards(str(directory), lengths, seq_length, max_predictions, arguments.num_records)
    return Settings(
        worker="",
        model_config=str(config_path),
        weights=str(weights),
        shards=tuple(shards),
        seq_length=seq_length,
        max_predictions=max_predictions,
        batch_size=arguments.batch_size,
        num_accumulation_steps=arguments.num_accumulation_steps,
        num_threads=arguments.num_threads,
        optimizer=arguments.optimizer,
        learning_rate=1e-4,
        seed=0,
    )


def _table(results: list[dict]) -> str:
    lines = [
        "| worker | examples/s | least - most | the first is faster | utilization | step s | first loss | mean loss "
        "| GiB | start s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines.append(
            f"| {result['worker']} | {result['examples_per_second']:.3f} "
            f"| {result['examples_per_second_least']:.3f} - {result['examples_per_second_most']:.3f} "
            f"| {results[0]['examples_per_second'] / result['examples_per_second']:.2f} times "
            f"| {format(result['utilization'], '.3f') if result['utilization'] else ''} "
            f"| {result['step_seconds_median']:.3f} | {result['first_loss']:.5f} | {result['mean_loss']:.3f} "
            f"| {result['peak_memory_bytes'] / 2**30:.1f} "
            f"| {result['startup_seconds'] + sum(result['warm_up_seconds']):.0f} |"
        )
    return "\n".join(lines)


def processor_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training updates of several implementations, side by side.")
    parser.add_argument(
        "--workers",
        default=_DEFAULT_WORKERS,
        help=f"Commas, of {', '.join(WORKERS)}; ratios are to the first. {', '.join(environment.OWN)} gets an "
        "environment of its own at first use.",
    )
    parser.add_argument(
        "--at_once", type=int, default=2, help="Workers that take turns, the first always among them; memory limits it."
    )
    parser.add_argument("--models", default="small-512", help=f"Commas, of {', '.join(MODELS)}.")
    parser.add_argument("--lengths", default="wiki,full", help="Commas, of wiki and full.")
    parser.add_argument("--batch_size", type=int, default=6, help="Examples of a micro-batch.")
    parser.add_argument("--num_accumulation_steps", type=int, default=1, help="Micro-batches of an update.")
    parser.add_argument("--num_threads", type=int, default=2, help="Threads of each worker.")
    parser.add_argument("--optimizer", choices=("lamb", "adam"), default="lamb")
    parser.add_argument("--dropout", type=float, help="Instead of the model's own rates.")
    parser.add_argument("--num_records", type=int, default=2048, help="Records in the shards.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps_per_round", type=int, default=2, help="Updates of a peer's turn; all take as long.")
    parser.add_argument("--own_steps_per_round", type=int, default=12, help="Updates of our turn.")
    parser.add_argument(
        "--output_dir",
        type=os.path.expanduser,
        default="results/benchmarks",
        help="For the table, JSON, logs and inputs.",
    )
    parser.add_argument("--no_plot", action="store_true", help="Leave out training.svg, which needs matplotlib.")
    arguments = parser.parse_args(values)
    if arguments.at_once < 2:
        parser.error("--at_once must be at least 2")
    for name, allowed in (("workers", WORKERS), ("models", MODELS), ("lengths", ("wiki", "full"))):
        unknown = set(getattr(arguments, name).split(",")) - set(allowed)
        if unknown:
            parser.error(f"--{name}: unknown {', '.join(sorted(unknown))}; there are {', '.join(allowed)}")
    needed = {package for name in arguments.workers.split(",") for package in PACKAGES.get(name, ())}
    if not arguments.no_plot:
        needed.add("matplotlib")
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    if missing:
        parser.error(f"{', '.join(missing)} not installed; pip install -e .[interop,plot,test] installs what is needed")
    if not arguments.no_plot:
        try:
            importlib.import_module("benchmarks.plot")
        except ImportError as error:
            parser.error(f"matplotlib does not load ({error}); --no_plot leaves training.svg out")
    return arguments


def main(values: list[str] | None = None) -> None:
    """Measures every model on every kind of lengths; prints the tables, leaves training.json, .md and .svg."""
    arguments = _arguments(values)
    for name in set(arguments.workers.split(",")) & set(environment.OWN):
        environment.python_of(name)  # before anything is measured
    directory = pathlib.Path(arguments.output_dir).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "processor": processor_name(),
        "num_processors": os.cpu_count(),
        "settings": vars(arguments),
        "comparisons": [],
    }
    page = [f"{report['date']}, {report['processor']}, {arguments.num_threads} threads, {arguments.optimizer}"]
    for model in arguments.models.split(","):
        for lengths in arguments.lengths.split(","):
            settings = prepare(model, lengths, arguments, directory)
            for group in _groups(arguments.workers.split(","), arguments.at_once):
                results = compare(settings, group, directory, arguments)
                report["comparisons"].append({"model": model, "lengths": lengths, "results": results})
                batch = f"{arguments.num_accumulation_steps} x {arguments.batch_size}"
                page.append(f"\n{model}, {lengths} lengths, {batch} examples an update\n\n{_table(results)}")
                print(page[-1], flush=True)
                (directory / "training.json").write_text(json.dumps(report, indent=1))
                (directory / "training.md").write_text("\n".join(page) + "\n")
    if not arguments.no_plot:
        from benchmarks import plot  # only here, because matplotlib comes with an extra

        plot.draw(report, directory / "training.svg")


if __name__ == "__main__":
    main()
