"""Memory of make_data over a text of any size, minute by minute: python -m benchmarks.memory_growth --folder=DIR.

    python -m benchmarks.memory_growth --folder=DIR [--gigabytes=40] [--step=shards|vocabulary]

The text is simulated: the ten files of benchmarks.large_data in DIR, which have other rare words each, are read under
as many names as make that size. A shard is made of each file, in fast mode at 512/76 with one pass in one process, and
removed when the next is begun, so the disk holds two of them. Memory is read once a second as in benchmarks.large_data.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from benchmarks.large_data import MAKE_DATA, resident_bytes, write_texts

STEPS = {
    "shards": ["--mode=fast", "--max_seq_length=512", "--max_predictions_per_seq=76", "--dupe_factor=1"],
    "vocabulary": ["--train_vocab"],
}
NUM_TEXTS, TEXT_BYTES = 10, 100_000_000


class Reading(NamedTuple):
    """Memory of a command at a moment."""

    seconds: float
    num_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="has the text, or gets it")
    parser.add_argument("--gigabytes", type=float, default=40.0)
    parser.add_argument("--step", choices=sorted(STEPS), default="shards")
    parser.add_argument("--num_processes", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    texts = write_texts(arguments.folder, NUM_TEXTS, TEXT_BYTES)
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        num_bytes = write_names(root / "names", texts, int(arguments.gigabytes * 1e9))
        flags = [f"--input_file={root}/names/*", *STEPS[arguments.step], f"--num_processes={arguments.num_processes}"]
        if arguments.step == "shards":
            flags += [f"--vocab_file={make_vocabulary(arguments.folder)}", f"--output_dir={root}/shards"]
        else:
            flags += [f"--vocab_file={root}/vocab"]
        print_table(arguments.step, num_bytes, watch(flags, root / "shards"))


def make_vocabulary(folder: pathlib.Path) -> pathlib.Path:
    """The vocabulary of the texts in folder, trained where it is missing."""
    path = folder / "vocab"  # the texts alone end with .txt
    if not path.exists():
        subprocess.run(
            [*MAKE_DATA, f"--input_file={folder}/*.txt", f"--vocab_file={path}", "--train_vocab"], check=True
        )
    return path


def write_names(folder: pathlib.Path, texts: list[pathlib.Path], num_bytes: int) -> int:
    """Links to the texts in turn until there are num_bytes; returns how many there are."""
    folder.mkdir()
    total = number = 0
    while total < num_bytes:
        text = texts[number % len(texts)].resolve()
        (folder / f"{number:05d}").symlink_to(text)
        total, number = total + text.stat().st_size, number + 1
    return total


def watch(flags: list[str], shards: pathlib.Path) -> list[Reading]:
    """Runs make_data and reads its memory; removes all finished shards but the newest."""
    readings, start = [], time.perf_counter()
    process = subprocess.Popen([*MAKE_DATA, *flags])
    while process.poll() is None:
        readings.append(Reading(time.perf_counter() - start, resident_bytes(process.pid)))
        for path in sorted(shards.glob("*.tfrecord"))[:-1]:
            path.unlink()
        time.sleep(1.0)
    if process.returncode:
        sys.exit(f"{' '.join(flags)} failed")
    return readings


def print_table(step: str, num_bytes: int, readings: list[Reading]) -> None:
    """Prints the highest memory of the first minute, of each tenth of the rest, and of all."""
    end = readings[-1].seconds
    print(f"{step}: {num_bytes / 1e9:.1f} GB of text in {end:.0f} s")
    print("| until second | highest memory, MB |\n|---|---|")
    borders = [60.0, *(60.0 + (end - 60.0) * tenth / 10 for tenth in range(1, 11))] if end > 120 else [end]
    before = 0.0
    for border in borders:
        here = [reading.num_bytes for reading in readings if before <= reading.seconds <= border]
        print(f"| {border:.0f} | {max(here, default=0) / 1e6:.0f} |")
        before = border
    print(f"\nhighest: {max(reading.num_bytes for reading in readings) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
