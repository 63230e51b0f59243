"""One process of two threads, two of one and eight of one on the same cores, with the same global batch.

`python -m benchmarks.scaling --help`. Whole jobs take turns, round after round, each started as a user would start
it; rates are medians over the updates that results.json counts. Beside them stands what benchmarks/predict.py says,
given only the first process at two batch sizes and the exchange measured by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
from typing import NamedTuple

import numpy as np

from benchmarks import exchange, inputs, predict
from benchmarks.predict import Network, Rank, Share
from tests.e2e import ranks

_SEQ_LENGTH = 512


class Case(NamedTuple):
    """How a job is cut."""

    num_ranks: int
    num_threads: int
    num_micro_batches: int
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.num_ranks} x {self.num_threads}"

    @property
    def examples_per_rank(self) -> int:
        return self.num_micro_batches * self.batch_size


# The last is the first with a quarter of the batch: two points tell rows from optimizer.
CASES = (Case(1, 2, 4, 6), Case(2, 1, 2, 6), Case(8, 1, 1, 3), Case(1, 2, 1, 6))


class Measured(NamedTuple):
    """One job's results."""

    update_seconds: float  # median
    examples_per_second: float  # at that median
    rows: float  # of 512 tokens, padding included, of all ranks and an update on average


def measure(case: Case, lengths: str, folder: pathlib.Path, arguments: argparse.Namespace) -> Measured:
    """Runs one job to its end."""
    output_dir = folder / "run"
    shutil.rmtree(output_dir, ignore_errors=True)
    flags = exchange.training_flags(arguments, folder / lengths, output_dir, case.batch_size, case.num_micro_batches)
    flags += [f"--intra_op_threads={case.num_threads}", *arguments.flags.split()]
    module = "bert_pretrain.launch" if case.num_ranks > 1 else "bert_pretrain.run"
    environ = {"NP": str(case.num_ranks), "OMP_NUM_THREADS": str(case.num_threads)}
    ended = ranks.run([sys.executable, "-m", module, *flags], folder / "log", 3600, **environ)
    if ended.code != 0:
        raise RuntimeError(f"{case.name} ended with {ended.code}:\n{ended.err[-2000:]}")
    results = json.loads((output_dir / "results.json").read_text())
    seconds = results["step_seconds"]["median"]
    tokens = results["tokens_per_second"] / results["updates_per_second"] / (1.0 - results["padding_share"])
    return Measured(seconds, case.num_ranks * case.examples_per_rank / seconds, tokens / _SEQ_LENGTH)


def _exchange_seconds(num_ranks: int, folder: pathlib.Path, arguments: argparse.Namespace) -> float:
    return exchange.Bench(arguments, folder, None).alone_seconds(exchange.Way(num_ranks))


def _calibrate(whole: list[Measured], quarter: list[Measured]) -> Rank:
    """Seconds of a row and of the optimizer from one process at two batch sizes."""
    (rows, seconds), (fewer_rows, fewer_seconds) = (
        (statistics.fmean(m.rows for m in measured), statistics.median(m.update_seconds for m in measured))
        for measured in (whole, quarter)
    )
    seconds_per_row = (seconds - fewer_seconds) / (rows - fewer_rows)
    return Rank(seconds_per_row, max(0.0, seconds - rows * seconds_per_row))


def _predicted(case: Case, alone: Rank, exchange_seconds: float, lengths: str) -> predict.Prediction:
    """The cores are shared: a rank among W gets a W-th of what the one process had."""
    rank = Rank(alone.seconds_per_row * case.num_ranks, alone.optimizer_seconds * case.num_ranks)
    rows = predict.share(case.examples_per_rank, case.num_ranks, {"full": "padded", "wiki": "dealt"}[lengths])
    # All of the measured exchange, whatever its bytes.
    network = Network(np.inf, exchange_seconds / max(1, 2 * (case.num_ranks - 1)))
    return predict.predict(rank, network, 0, case.num_ranks, case.examples_per_rank, Share(*rows))


def compare(lengths: str, folder: pathlib.Path, arguments: argparse.Namespace) -> str:
    """The table for one kind of lengths."""
    measured: dict[Case, list[Measured]] = {case: [] for case in CASES}
    for number in range(arguments.rounds):
        for case in CASES:
            measured[case].append(measure(case, lengths, folder, arguments))
            print(f"round {number + 1}, {lengths}, {case.name}: {measured[case][-1]}", file=sys.stderr, flush=True)
    alone = _calibrate(measured[CASES[0]], measured[CASES[-1]])
    lines = [
        "| processes x threads | an update | examples/s | least - most | of the first | predicted | exchange s |",
        "|---|---|---|---|---|---|---|",
    ]
    first = statistics.median(m.examples_per_second for m in measured[CASES[0]])
    for case in CASES:
        rates = [m.examples_per_second for m in measured[case]]
        seconds = _exchange_seconds(case.num_ranks, folder, arguments)
        expected = _predicted(case, alone, seconds, lengths).examples_per_second
        lines.append(
            f"| {case.name} | {case.num_ranks} x {case.num_micro_batches} x {case.batch_size} "
            f"| {statistics.median(rates):.3f} | {min(rates):.3f} - {max(rates):.3f} "
            f"| {statistics.median(rates) / first:.3f} | {expected:.3f} | {seconds:.3f} |"
        )
    title = f"{arguments.model}-512, {lengths} lengths, {arguments.rounds} rounds of {arguments.updates} updates"
    told = f"one process: {alone.seconds_per_row:.4f} s a row, {alone.optimizer_seconds:.3f} s the optimizer"
    return f"{title}; {told}\n\n" + "\n".join(lines)


def main(values: list[str] | None = None) -> None:
    """Measures every kind of lengths and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small", help="A file of configs/model.")
    parser.add_argument("--lengths", default="full,wiki", help="Commas, of full and wiki.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10, help="Of each job; the first two are not counted.")
    parser.add_argument("--flags", default="", help="More flags for bert_pretrain.run, separated by blanks.")
    parser.add_argument(
        "--output_dir", type=os.path.expanduser, default="results/scaling", help="For inputs, runs and logs."
    )
    arguments = parser.parse_args(values)
    if os.cpu_count() != 2:
        print(f"note: this machine has {os.cpu_count()} cores, the cases are made for two", file=sys.stderr)
    folder = pathlib.Path(arguments.output_dir).resolve()
    for lengths in arguments.lengths.split(","):
        inputs.make_shards(str(folder / lengths), lengths, _SEQ_LENGTH, 76, 1024)
        print(f"\n{compare(lengths, folder, arguments)}", flush=True)


if __name__ == "__main__":
    main()
