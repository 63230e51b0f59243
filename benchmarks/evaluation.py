"""Evaluation of a finite set, ours and Hugging Face's, side by side: `python -m benchmarks.evaluation --help`.

Every worker is a process of its own; each in turn evaluates all examples, round after round, the others being stopped.
All must find the same losses and accuracies, or nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.peers import records
from benchmarks.settings import Settings
from benchmarks.training import MODELS, prepare
from benchmarks.worker_process import WorkerProcess
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import count_forward_flops

_HUGGING_FACE = "benchmarks.peers.hugging_face_evaluation"
WORKERS = {
    "ours": "benchmarks.ours_evaluation",
    "training_forward": "benchmarks.ours_evaluation",
    "hugging_face": _HUGGING_FACE,
    "hugging_face_sorted": _HUGGING_FACE,
}
_METRICS = ("masked_lm_loss", "masked_lm_accuracy", "next_sentence_loss", "next_sentence_accuracy")
# Float32 rounds sums in different orders differently, and two best logits may be equal but for that.
_TOLERANCES = {"loss": 1e-5, "accuracy": 1e-3}


def compare(settings: Settings, arguments: argparse.Namespace, directory: pathlib.Path) -> dict[str, list[dict]]:
    """Worker -> its answers, one a round."""
    workers: list[WorkerProcess] = []
    answers: dict[str, list[dict]] = {}
    try:
        for name in arguments.workers.split(","):
            workers.append(WorkerProcess(name, WORKERS[name], settings, directory))
            workers[-1].pause()
        for _ in range(arguments.rounds):
            for worker in workers:
                worker.wake()
                answers.setdefault(worker.name, []).append(worker.ask(do="evaluate"))
                worker.pause()
    finally:
        for worker in workers:
            worker.end()
    return answers


def _check(answers: dict[str, list[dict]], num_examples: int) -> None:
    """RuntimeError unless all evaluated every example and found the same, dropout aside."""
    wrong = [name for name, turns in answers.items() if any(turn["examples"] != num_examples for turn in turns)]
    compared = {name: turns[0]["metrics"] for name, turns in answers.items() if name != "training_forward"}
    for name in _METRICS:
        values = [metrics[name] for metrics in compared.values()]
        if max(values) - min(values) > _TOLERANCES[name.rsplit("_", 1)[1]] * max(1.0, *values):
            wrong.append(name)
    if wrong:
        raise RuntimeError(f"the workers disagree on {', '.join(wrong)}: {compared}")


def _forward_flops(settings: Settings) -> float:
    """Floating-point operations of a forward pass over all examples, without padding."""
    examples = records.read(settings.shards)
    lengths = examples.input_mask.sum(axis=1).astype(np.float64)
    return count_forward_flops(
        ModelConfig.from_json(settings.model_config),
        num_tokens=lengths.sum(),
        squared_lengths=np.square(lengths).sum(),
        num_masked=float(examples.masked_lm_weights.sum()),
        num_examples=float(len(lengths)),
    )


def _table(answers: dict[str, list[dict]], flops: float) -> str:
    lines = [
        "| worker | examples/s | least - most | the first is faster | utilization | masked-LM loss | accuracy "
        "| next-sentence loss | accuracy | GiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rates = {name: [turn["examples"] / turn["seconds"] for turn in turns] for name, turns in answers.items()}
    first = rates[next(iter(rates))]
    for name, turns in answers.items():
        faster = statistics.median(own / other for own, other in zip(first, rates[name]))
        lines.append(
            f"| {name} | {statistics.median(rates[name]):.2f} | {min(rates[name]):.2f} - {max(rates[name]):.2f} "
            f"| {faster:.2f} times | {_utilization(turns, flops)} "
            f"| {' | '.join(format(turns[0]['metrics'][metric], '.6f') for metric in _METRICS)} "
            f"| {max(turn['peak_memory_bytes'] for turn in turns) / 2**30:.1f} |"
        )
    return "\n".join(lines)


def _utilization(turns: list[dict[str, Any]], flops: float) -> str:
    if not turns[0]["matmul_flops"]:
        return ""
    return f"{statistics.median(flops / turn['seconds'] / turn['matmul_flops'] for turn in turns):.3f}"


def _arguments(values: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluation of several implementations, side by side.")
    parser.add_argument("--workers", default=",".join(WORKERS), help="Commas; ratios are to the first.")
    parser.add_argument("--model", choices=MODELS, default="base-512")
    parser.add_argument("--lengths", choices=("wiki", "full"), default="wiki")
    parser.add_argument(
        "--num_examples", dest="num_records", type=int, default=10_000, help="Each turn evaluates all of them."
    )
    parser.add_argument("--batch_size", type=int, default=8, help="Examples of a batch, of every worker.")
    parser.add_argument("--num_threads", type=int, default=2, help="Threads of each worker.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--output_dir",
        type=os.path.expanduser,
        default="results/benchmarks",
        help="For the table, JSON, logs and inputs.",
    )
    parser.set_defaults(num_accumulation_steps=1, optimizer="lamb", dropout=None)  # what training.prepare also reads
    arguments = parser.parse_args(values)
    unknown = set(arguments.workers.split(",")) - set(WORKERS)
    if unknown:
        parser.error(f"--workers: unknown {', '.join(sorted(unknown))}; there are {', '.join(WORKERS)}")
    for divisor, why in ((inputs.NUM_SHARDS, "the shards"), (arguments.batch_size, "--batch_size")):
        if arguments.num_records % divisor:
            parser.error(f"--num_examples {arguments.num_records} must be a multiple of {divisor}, of {why}")
    return arguments


def main(values: list[str] | None = None) -> None:
    """Prints the table and leaves it with every turn's figures in evaluation.json."""
    arguments = _arguments(values)
    directory = pathlib.Path(arguments.output_dir).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    settings = prepare(arguments.model, arguments.lengths, arguments, directory, knows_frequencies=True)
    answers = compare(settings, arguments, directory)
    _check(answers, arguments.num_records)
    report = {"settings": vars(arguments), "forward_flops": _forward_flops(settings), "turns": answers}
    (directory / "evaluation.json").write_text(json.dumps(report, indent=1))
    print(_table(answers, report["forward_flops"]))


if __name__ == "__main__":
    main()
