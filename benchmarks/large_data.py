"""make_data on a large text: processor time a GB and peak memory of the vocabulary step and of both modes.

    python -m benchmarks.large_data [--megabytes=1000] [--files=10] [--folder=DIR] [--num_processes=2]

Writes the text of benchmarks.large_text into some files, other rare words in each, and makes a vocabulary of all of it.
Then it makes a shard of each file, in fast and in exact mode, at 512/76 with ten passes in one process, and removes it:
with ten passes a shard takes 25 times its text on the disk. Memory is that of all processes of a command together,
shared pages once (Pss), read five times a second. Without --folder everything is in $TMPDIR and removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import psutil

from benchmarks import large_text

MAKE_DATA = [sys.executable, "-m", "bert_pretrain.make_data"]
SHAPE = ["--max_seq_length=512", "--max_predictions_per_seq=76", "--dupe_factor=10", "--num_processes=1"]
SECONDS_BETWEEN_READINGS = 0.2


class Cost(NamedTuple):
    """What a command took."""

    cpu_seconds: float
    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1000.0)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--folder", type=pathlib.Path, help="for text and vocabulary, which are kept and used again")
    parser.add_argument("--num_processes", type=int, default=2, help="of the vocabulary step")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, pathlib.Path(temporary), arguments)


def measure(folder: pathlib.Path, output: pathlib.Path, arguments: argparse.Namespace) -> None:
    """Prints a Markdown table, a line when it is known."""
    texts = write_texts(folder, arguments.files, int(arguments.megabytes * 1e6 / arguments.files))
    num_bytes = sum(path.stat().st_size for path in texts)
    vocabulary = folder / "vocab"  # the texts alone end with .txt
    print(f"\n{num_bytes / 1e9:.3f} GB of text in {len(texts)} files\n")
    print("| | processor seconds a GB | seconds in all | peak memory, MB |\n|---|---|---|---|")
    flags = [f"--input_file={folder}/*.txt", f"--vocab_file={vocabulary}", "--train_vocab"]
    cost = run([*flags, f"--num_processes={arguments.num_processes}"])
    print_line(f"vocabulary, {arguments.num_processes} processes", [cost], num_bytes)
    for mode in ("fast", "exact"):
        costs = [shard_cost(mode, path, vocabulary, output / "shard") for path in texts]
        print_line(f"{mode}, 512/76, ten passes, a shard a file", costs, num_bytes)


def write_texts(folder: pathlib.Path, num_files: int, num_bytes: int) -> list[pathlib.Path]:
    """The files, written where they are missing."""
    paths = [folder / f"text-{number:03d}-of-{num_files:03d}.txt" for number in range(num_files)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    first = large_text.first_text(None) if missing else ""
    for number in missing:
        large_text.write(paths[number], first, num_bytes, seed=number)
    return paths


def shard_cost(mode: str, text: pathlib.Path, vocabulary: pathlib.Path, shard: pathlib.Path) -> Cost:
    """Makes a shard and removes it."""
    flags = [f"--mode={mode}", f"--input_file={text}", f"--vocab_file={vocabulary}", f"--output_file={shard}"]
    cost = run([*flags, *SHAPE])
    for path in (shard, shard.with_name(shard.name + ".json")):
        path.unlink()
    return cost


def run(flags: list[str]) -> Cost:
    """Runs make_data; its output is shown if it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*MAKE_DATA, *flags], stdout=log, stderr=log, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(SECONDS_BETWEEN_READINGS)
        log.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(flags)} failed:\n{log.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu_seconds, time.perf_counter() - start, peak)


def resident_bytes(pid: int) -> int:
    """Pss of a process and all that it started: pages of their own, and their share of pages that several have."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has ended
                total += one.memory_full_info().pss
    return total


def print_line(name: str, costs: list[Cost], num_bytes: int) -> None:
    """A row of the table."""
    cpu_seconds = sum(cost.cpu_seconds for cost in costs) / num_bytes * 1e9
    seconds, peak = sum(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs)
    print(f"| {name} | {cpu_seconds:.0f} | {seconds:.0f} | {peak / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
