"""Masked-LM accuracy against seconds of training, beside Hugging Face's Trainer: `python -m benchmarks.quality --help`.

Both train a new model of the same shape on the same text with the same vocabulary and threads, one run after the other
or, with --jobs, side by side on cores of their own, and are evaluated on the same held-out records. A user who has so
many minutes measures the speed first, and then plans so many updates as fit; so does each side here. What is finished
in the output directory is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple, Optional

import psutil

from benchmarks.peers import records
from benchmarks.settings import Settings
from benchmarks.worker_process import WorkerProcess
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.make_data import demo
from bert_pretrain.run_files.metrics import read_metrics
from bert_pretrain.system import files

_ROOT = pathlib.Path(__file__).parents[1]
_PEER = "benchmarks.peers.hugging_face_trainer"
_PACKAGES = ("torch", "transformers", "accelerate", "matplotlib")
OURS, PEER = "bert_pretrain", "Hugging Face"
# Of the same weights, on both sides: sums are rounded differently, and two best logits may be equal but for that.
_TOLERANCES = {"accuracy": 2e-3, "rare_accuracy": 2e-3, "loss": 5e-3}
_METRICS = {"accuracy": "masked_lm_accuracy", "rare_accuracy": "masked_lm_accuracy_rare", "loss": "masked_lm_loss"}

_BUDGET_TOLERANCE = 0.1  # a side that used so much less or more of its budget is named


class Run(NamedTuple):
    """One training run."""

    side: str
    minutes: float  # of training; 0: the run that measures the speed
    seed: int
    learning_rate: Optional[float] = None  # None: what our flags say

    @property
    def name(self) -> str:
        """Of its files."""
        kind = f"{self.minutes:g}min" if self.minutes else "speed"
        rate = "" if self.learning_rate is None else f"-{self.learning_rate:g}"
        return f"{self.side.replace(' ', '_').lower()}-{kind}{rate}-seed{self.seed}"


class Study:
    """The runs of a comparison, which lie in a folder, and their data.

    A finished run is kept for as long as its side's settings and the data are the same. Our code may change meanwhile:
    whoever wants a run again removes its JSON.
    """

    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path) -> None:
        """Makes the demo's data unless --data_dir names others. ValueError where something is missing there."""
        self._arguments, self._folder = arguments, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._data = pathlib.Path(arguments.data_dir or _make_demo(folder)).resolve()
        self._text = self._data / "train.txt" if arguments.data_dir else folder / "train.txt"
        needed = [self._text, *(self._data / name for name in ("vocab.txt", "bert_config.json", "train", "eval"))]
        for path in needed:
            if not path.exists():
                raise ValueError(f"{path} is missing; --data_dir needs {', '.join(each.name for each in needed)}")
        self._shards = find_shards([str(self._data / "eval")])
        held_out = records.read(self._shards)
        self.num_held_out, self._seq_length = held_out.input_ids.shape
        self._max_predictions = held_out.masked_lm_ids.shape[1]
        data = hashlib.sha256()
        for path in (self._text, self._data / "vocab.txt", self._data / "bert_config.json", *self._shards):
            data.update(pathlib.Path(path).read_bytes())
        self._data_digest = data.hexdigest()
        self._flags = [*_flags_of(pathlib.Path(arguments.flagfile)), *shlex.split(arguments.flags)]
        if not _number(self._flags, "num_train_steps", 0):
            raise ValueError("--flagfile or --flags must have --num_train_steps, which the warm-up is a part of")

    def runs_of(self, minutes: float) -> list[Run]:
        """In turns: for each seed ours, then one of the peer's for each learning rate. 0: a short one of each side.

        Beyond --tune_minutes the peer has the rate that was best in the longest budget before, where there is one.
        """
        rates, seeds = self._arguments.hf_learning_rates, self._arguments.seeds
        if not minutes:
            return [Run(OURS, 0, 0), Run(PEER, 0, 0, rates[0])]
        tuned = [each for each in self._arguments.minutes if each <= self._arguments.tune_minutes]
        if tuned and minutes > max(tuned):
            rates = [self._best_rate(max(tuned))]
        return [
            run for seed in seeds for run in (Run(OURS, minutes, seed), *(Run(PEER, minutes, seed, r) for r in rates))
        ]

    def _best_rate(self, minutes: float) -> float:
        finished = [result for run in self.runs_of(minutes) if (result := self.finished(run))]
        peers = [entry for entry in summarize(finished) if entry["side"] == PEER]
        return peers[0]["learning_rate"] if peers else self._arguments.hf_learning_rates[0]

    def finished(self, run: Run) -> Optional[dict[str, Any]]:
        """What a run has left, if it was of the same settings."""
        try:
            result = json.loads(self._result_path(run).read_text())
        except FileNotFoundError:
            return None
        return result if result["settings"] == self._settings_of(run) else None

    def do(self, runs: list[Run]) -> None:
        """Does those that are not finished, --jobs at a time. Each job keeps to --threads cores of its own."""
        arguments = self._arguments
        cores, jobs = sorted(os.sched_getaffinity(0)), itertools.count()

        def keep_to_own_cores() -> None:  # of the job's thread; the processes that it starts inherit them
            first = next(jobs) * arguments.threads
            os.sched_setaffinity(0, cores[first : first + arguments.threads])

        with concurrent.futures.ThreadPoolExecutor(
            arguments.jobs, initializer=keep_to_own_cores if arguments.jobs > 1 else None
        ) as pool:
            futures = [pool.submit(self._do, run) for run in runs if not self.finished(run)]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:  # also the end that SIGTERM asks for: no run stays behind at work
                pool.shutdown(wait=False, cancel_futures=True)
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.terminate()
                raise

    def _plan(self, run: Run) -> int:
        """Updates that fit; as many as a finished run of the same side and budget had."""
        if not run.minutes:
            return self._arguments.speed_updates
        runs = [each for minutes in (0, *self._arguments.minutes) for each in self.runs_of(minutes)]
        done = [result for each in runs if each.side == run.side and (result := self.finished(each))]
        alike = [result for result in done if result["minutes"] == run.minutes]
        longest = max(done, key=lambda result: result["updates"])  # it knows the speed best
        return alike[0]["updates"] if alike else updates_that_fit(longest["points"], 60 * run.minutes)

    def _num_evaluations(self, run: Run) -> int:
        return self._arguments.evaluations if run.minutes else 2  # two tell the speed

    def _do(self, run: Run) -> None:
        updates = self._plan(run)
        print(f"{datetime.datetime.now():%H:%M:%S} {run.name}: {updates} updates", file=sys.stderr, flush=True)
        folder = self._folder / run.name
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was stopped, or of other settings
        folder.mkdir()
        do = self._train_ours if run.side == OURS else self._train_peer
        result = {**run._asdict(), "settings": self._settings_of(run), "updates": updates}
        result.update(do(run, folder, updates, -(-updates // self._num_evaluations(run))))
        result["load_average"] = os.getloadavg()[0]  # of the last minute: tells whether others were at work, too
        files.write_json(str(self._result_path(run)), result, indent=1)

    def _train_ours(self, run: Run, folder: pathlib.Path, updates: int, evaluate_every: int) -> dict[str, Any]:
        planned = _number(self._flags, "num_train_steps", 1)
        schedule = {name: _number(self._flags, name, 0) for name in ("num_warmup_steps", "num_decay_steps")}
        # Of ours, on one rank: several batches where gradients are accumulated.
        batch_size = _number(self._flags, "train_batch_size", 32)
        between = evaluate_every * batch_size * _number(self._flags, "num_accumulation_steps", 1)
        begin = time.time()
        self._start(
            folder, "run", *self._flags, "--do_train", "--do_eval", f"--output_dir={folder}",
            f"--input_files_dir={self._data}/train", f"--eval_files_dir={self._data}/eval",
            f"--bert_config_file={self._data}/bert_config.json", f"--vocab_file={self._data}/vocab.txt",
            f"--num_train_steps={updates}",
            *(f"--{name}={round(value * updates / planned)}" for name, value in schedule.items() if value),
            "--samples_start_eval=0", f"--samples_between_eval={between}", f"--seed={run.seed}",
            f"--data_seed={run.seed}", f"--intra_op_threads={self._arguments.threads}",
        )  # fmt: skip
        exported = folder / "hugging_face"
        self._start(
            folder, "export", f"--checkpoint={folder}/model.ckpt-{updates}", f"--hf_dir={exported}",
            f"--bert_config_file={self._data}/bert_config.json", f"--vocab_file={self._data}/vocab.txt",
        )  # fmt: skip
        points, training_began = training_seconds(read_metrics(str(folder), ("eval",))[0])
        other = self._ask_peer(run, {"do": "evaluate_folder", "folder": str(exported)})
        _check_evaluators(run, points[-1], other)
        described = json.loads((folder / "run.json").read_text())
        done = json.loads((folder / "results.json").read_text())
        return {
            "points": points,
            "tokens": round(points[-1]["examples"] * done["tokens_per_second"] / done["examples_per_second"]),
            "startup_seconds": training_began - begin,
            "shown_learning_rate": described["settings"]["optim"]["learning_rate"],
            "optimizer": described["settings"]["optim"]["optimizer_type"],
            "versions": described["versions"],
            "on_the_peers_side": other,
        }

    def _train_peer(self, run: Run, folder: pathlib.Path, updates: int, evaluate_every: int) -> dict[str, Any]:
        begin = time.time()
        request = {"do": "train", "updates": updates, "evaluate_every": evaluate_every, "output_dir": str(folder)}
        answer = self._ask_peer(run, {**request, "warmup_share": self._arguments.hf_warmup})
        shutil.rmtree(folder)  # checkpoints
        return {
            "points": answer["points"],
            "tokens": answer["tokens"],
            "startup_seconds": answer["began"] - begin,
            "shown_learning_rate": run.learning_rate,
            "optimizer": "adamw",
            "versions": answer["versions"],
        }

    def _start(self, folder: pathlib.Path, module: str, *flags: str) -> None:
        """Runs a module of the package. RuntimeError, which names its log, where it fails."""
        log = folder.with_name(f"{folder.name}.{module}.log")
        command = [sys.executable, "-m", f"bert_pretrain.{module}", *flags]
        with log.open("w") as output:
            done = subprocess.run(command, cwd=_ROOT, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"bert_pretrain.{module} failed; {log} ends with\n{log.read_text()[-2000:]}")

    def _ask_peer(self, run: Run, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a process of its own, and its versions."""
        arguments = self._arguments
        model = json.loads((self._data / "bert_config.json").read_text())
        if arguments.hf_dropout is not None:
            model.update(hidden_dropout_prob=arguments.hf_dropout, attention_probs_dropout_prob=arguments.hf_dropout)
        config = self._folder / "hugging_face.config.json"
        config.write_text(json.dumps(model))
        settings = Settings(
            worker="",
            model_config=str(config),
            weights="",
            shards=tuple(self._shards),
            seq_length=self._seq_length,
            max_predictions=self._max_predictions,
            batch_size=arguments.hf_batch_size,
            num_accumulation_steps=1,
            num_threads=arguments.threads,
            optimizer="adam",
            learning_rate=run.learning_rate or 0.0,
            seed=run.seed,
            text=str(self._text),
            vocab=str(self._data / "vocab.txt"),
        )
        worker = WorkerProcess(run.name, _PEER, settings, self._folder)
        try:
            return {**worker.ask(**request), "versions": worker.started["versions"]}
        finally:
            worker.end()

    def _settings_of(self, run: Run) -> dict[str, Any]:
        """What makes a finished run another one than wanted: the data, and its own side's settings."""
        arguments = self._arguments
        own: dict[str, Any] = {"flags": self._flags}
        if run.side == PEER:
            names = ("hf_batch_size", "hf_dropout", "hf_warmup")
            own = {name: getattr(arguments, name) for name in names}
        evaluations = self._num_evaluations(run)
        return {"data": self._data_digest, "threads": arguments.threads, "evaluations": evaluations, **own}

    def _result_path(self, run: Run) -> pathlib.Path:
        return self._folder / f"{run.name}.json"


def _make_demo(folder: pathlib.Path) -> str:
    """The embedded demo's folder; the text that its training shards were made of is written to train.txt."""
    directory = files.cache_directory("demo")
    directory.mkdir(parents=True, exist_ok=True)
    counts = demo.make_demo(str(directory))
    every = demo.DemoSettings().documents_per_held_out
    training = [text for number, text in enumerate(demo.demo_documents()) if number % every != every - 1]
    if len(training) != counts["train"]["documents"]:
        raise ValueError(f"{directory} was made of other installed packages; remove it, and it is made anew")
    (folder / "train.txt").write_text("\n\n".join("\n".join(sentences) for sentences in training), encoding="utf-8")
    return str(directory)


def _flags_of(flagfile: pathlib.Path) -> list[str]:
    return [line.strip() for line in flagfile.read_text().splitlines() if line.strip().startswith("--")]


def _number(flags: list[str], name: str, default: int) -> int:
    """The value of a flag that is a whole number: the last one given."""
    values = [match[1] for flag in flags if (match := re.fullmatch(f"--{name}=(.+)", flag))]
    return int(values[-1]) if values else default


def updates_that_fit(points: list[dict[str, float]], seconds: float) -> int:
    """Updates of so many seconds, at the speed between a run's first and last point; its first ones may be slower."""
    first, last = points[0], points[-1]
    per_second = (last["update"] - first["update"]) / (last["seconds"] - first["seconds"])
    lead = max(0.0, first["seconds"] - first["update"] / per_second)
    return max(1, int((seconds - lead) * per_second))


def training_seconds(evaluations: list[dict[str, Any]]) -> tuple[list[dict[str, float]], float]:
    """The points of a curve, and when training began; from our run's records of evaluations.

    The first record is of the evaluation before the first update. Seconds of evaluations do not count, all else does.
    """
    start, *others = evaluations
    assert start["update"] == 0, "a run from the start evaluates before its first update"
    points, paused = [], 0.0
    for record in others:
        paused += record["seconds"]
        points.append(
            {
                "update": record["update"],
                "examples": record["examples"],
                "seconds": record["time"] - start["time"] - paused,
                **{name: record[own_name] or 0.0 for name, own_name in _METRICS.items()},
            }
        )
    return points, start["time"]


def _check_evaluators(run: Run, ours: dict[str, float], peers: dict[str, float]) -> None:
    """RuntimeError unless both evaluators find the same of the same weights."""
    wrong = [name for name, tolerance in _TOLERANCES.items() if abs(ours[name] - peers[name]) > tolerance]
    if wrong:
        raise RuntimeError(f"{run.name}: the evaluators disagree on {', '.join(wrong)}: {ours}, {peers}")


def summarize(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the runs of a budget: one entry for ours and one for each of the peer's learning rates, the best one first.

    An entry has the means over the seeds at each evaluation, and the least and the greatest accuracy in the end.
    """
    groups: dict[tuple[str, Optional[float]], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["side"], result["learning_rate"]), []).append(result)
    entries = []
    for (side, _), runs in groups.items():
        curve = [
            {name: statistics.fmean(point[name] for point in points) for name in ("update", "seconds", *_METRICS)}
            for points in zip(*(run["points"] for run in runs))
        ]
        ends = [run["points"][-1] for run in runs]
        entries.append(
            {
                **{name: runs[0][name] for name in ("minutes", "updates", "tokens", "optimizer")},
                **{"side": side, "learning_rate": runs[0]["shown_learning_rate"], "num_seeds": len(runs)},
                **{"examples": ends[0]["examples"], **curve[-1]},
                "startup_seconds": statistics.fmean(run["startup_seconds"] for run in runs),
                "accuracy_least": min(end["accuracy"] for end in ends),
                "accuracy_most": max(end["accuracy"] for end in ends),
                "curve": curve,
            }
        )
    return sorted(entries, key=lambda entry: (entry["side"] == PEER, -entry["accuracy"]))


def seconds_to_reach(curve: list[dict[str, float]], accuracy: float) -> Optional[float]:
    """Of the first evaluation that found at least this accuracy; None where none did."""
    return next((point["seconds"] for point in curve if point["accuracy"] >= accuracy), None)


def tables(budgets: list[list[dict[str, Any]]]) -> str:
    """The Markdown tables: how the runs ended, and when each side reached the other's last accuracy."""
    ends = [
        "| minutes | side | optimizer, rate | updates | examples | tokens | seconds | start-up s | accuracy | loss "
        "| accuracy, rare tokens |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    reached = ["| minutes | side | the other's last accuracy | first reached after s |", "|---|---|---|---|"]
    tried = []
    for entries in budgets:
        ours, best = entries[0], entries[1]
        for entry, other in ((ours, best), (best, ours)):
            spread = (
                f" ({entry['accuracy_least']:.4f} - {entry['accuracy_most']:.4f})" if entry["num_seeds"] > 1 else ""
            )
            ends.append(
                f"| {entry['minutes']:g} | {entry['side']} | {entry['optimizer']}, {entry['learning_rate']:g} "
                f"| {entry['updates']:,} | {entry['examples']:,} | {entry['tokens']:,} | {entry['seconds']:.1f} "
                f"| {entry['startup_seconds']:.1f} | {entry['accuracy']:.4f}{spread} | {entry['loss']:.4f} "
                f"| {entry['rare_accuracy']:.4f} |"
            )
            seconds = seconds_to_reach(entry["curve"], other["accuracy"])
            after = "not reached" if seconds is None else f"{seconds:.1f}"
            reached.append(f"| {entry['minutes']:g} | {entry['side']} | {other['accuracy']:.4f} | {after} |")
        rates = ", ".join(f"{entry['learning_rate']:g}: {entry['accuracy']:.4f}" for entry in entries[1:])
        tried.append(f"{PEER}'s rates, {ours['minutes']:g} minutes: {rates}.")
        for entry in (ours, best):
            if abs(entry["seconds"] / (60 * entry["minutes"]) - 1) > _BUDGET_TOLERANCE:
                tried.append(
                    f"**{entry['side']} took {entry['seconds']:.1f} s of {60 * entry['minutes']:g}: its speed was "
                    "another one when it was measured. Remove these runs' JSON files to plan anew.**"
                )
    return "\n".join([*ends, "", *reached, "", *tried])


def _write_report(study: Study, arguments: argparse.Namespace, folder: pathlib.Path) -> str:
    """Writes quality.json, .md and, unless left out, .svg of the budgets that are finished; returns the tables."""
    from benchmarks.training import processor_name  # not above: the demo's processes would load TensorFlow, too

    runs = [[study.finished(run) for run in study.runs_of(minutes)] for minutes in arguments.minutes]
    finished = [[run for run in each if run] for each in runs if all(each)]
    if not finished:
        return ""
    budgets = [summarize(each) for each in finished]
    every_run = [run for each in finished for run in each]
    report = {
        "date": datetime.date.today().isoformat(),
        "processor": processor_name(),
        "num_processors": os.cpu_count(),
        "settings": vars(arguments),
        "budgets": budgets,
        "runs": every_run,
    }
    compared = [(run["points"][-1], run["on_the_peers_side"]) for run in every_run if run["side"] == OURS]
    worst = {name: max(abs(own[name] - other[name]) for own, other in compared) for name in _TOLERANCES}
    versions = {name: version for run in every_run for name, version in run["versions"].items() if version}
    loads = [run["load_average"] for run in every_run]
    page = [
        f"{report['date']}, {report['processor']}, {arguments.threads} threads, "
        f"{arguments.jobs} runs at a time; "
        f"{study.num_held_out:,} held-out records, "
        f"{compared[0][1]['masked_tokens']:,.0f} masked tokens; {len(arguments.seeds)} seed(s); "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        tables(budgets),
        "Seconds are of training, without evaluations and start-up. Load average at the ends of the runs: "
        f"{min(loads):.1f} - {max(loads):.1f}. Largest differences between both evaluators on our last weights: "
        + ", ".join(f"{name} {difference:.1e}" for name, difference in worst.items())
        + ".",
    ]
    files.write_json(str(folder / "quality.json"), report, indent=1)
    (folder / "quality.md").write_text("\n\n".join(page) + "\n")
    if not arguments.no_plot:
        from benchmarks import plot  # only here, because matplotlib comes with an extra

        plot.draw_quality(report, folder / "quality.svg")
    return page[1]


def _floats(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy on held-out text against seconds of training.")
    parser.add_argument("--minutes", default="2,10,60", type=_floats, help="Budgets of training, commas.")
    parser.add_argument(
        "--seeds", default="0", type=lambda text: [int(each) for each in text.split(",")], help="Commas."
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Of each side.")
    parser.add_argument(
        "--jobs", type=int, default=1, help="Runs at a time, each on --threads cores of its own. Default: one by one."
    )
    parser.add_argument("--evaluations", type=int, default=20, help="Of a run; not counted as training.")
    parser.add_argument("--speed_updates", type=int, default=60, help="Of the run that measures a side's speed first.")
    parser.add_argument(
        "--data_dir",
        type=os.path.expanduser,
        help="Instead of the demo's data: a folder with train.txt (sentences as lines, documents apart by empty ones), "
        "shards of it in train, of held-out text in eval, vocab.txt (lower case) and bert_config.json.",
    )
    parser.add_argument(
        "--flagfile", default=str(_ROOT / "configs" / "run" / "demo.flags"), help="Of bert_pretrain.run."
    )
    parser.add_argument("--flags", default="", help="More flags of bert_pretrain.run, in one string.")
    parser.add_argument(
        "--hf_learning_rates", default="5e-4,1e-3,2e-3", type=_floats, help="All are tried; the best is shown."
    )
    parser.add_argument(
        "--tune_minutes",
        type=float,
        default=10.0,
        help="All rates are tried in budgets up to this one. Longer ones take the best of the longest of these.",
    )
    parser.add_argument("--hf_batch_size", type=int, default=32)
    parser.add_argument(
        "--hf_dropout",
        default=0.0,
        type=lambda text: None if text == "config" else float(text),
        help="Default: none, which is best for short runs. config: the rates of bert_config.json.",
    )
    parser.add_argument(
        "--hf_warmup", type=float, default=0.0, help="Share of the updates; the Trainer's default is 0."
    )
    parser.add_argument(
        "--output_dir",
        type=os.path.expanduser,
        default="results/benchmarks",
        help="For the tables, JSON and picture; the runs lie in its folder quality.",
    )
    parser.add_argument("--no_plot", action="store_true", help="Leave out quality.svg, which needs matplotlib.")
    arguments = parser.parse_args(values)
    missing = [name for name in _PACKAGES[: -1 if arguments.no_plot else None] if not importlib.util.find_spec(name)]
    if missing:
        parser.error(f"{', '.join(missing)} not installed; pip install -e .[interop,plot,test] installs what is needed")
    if min(arguments.minutes) <= 0:
        parser.error("--minutes must be positive")
    if arguments.jobs * arguments.threads > len(os.sched_getaffinity(0)) and arguments.jobs > 1:
        parser.error(f"--jobs={arguments.jobs} of --threads={arguments.threads} need more cores than there are")
    return arguments


def main(values: list[str] | None = None) -> None:
    """Trains what is not finished yet; after each budget leaves quality.json, .md and .svg, and prints the tables."""
    arguments = _arguments(values)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no run stays behind at work
    folder = pathlib.Path(arguments.output_dir).resolve()
    try:
        study = Study(arguments, folder / "quality")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    page = ""
    for minutes in (0, *sorted(arguments.minutes)):
        study.do(study.runs_of(minutes))
        page = _write_report(study, arguments, folder)
    print(page)


if __name__ == "__main__":
    main()
