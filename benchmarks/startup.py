"""Seconds and memory of a second start on a large data set: `python -m benchmarks.startup`.

The data are simulated, because 365 GB fit no test machine: each shard is a sparse file of the right size that holds its
first record alone, and its index table, which the first start would have made, is written with drawn record sizes. What
is measured is real: finding, identifying and opening the shards, reading and checking all tables, the first record of
each shard, and the order of the first update, in as many processes at once as a host has ranks. Memory is the highest
sum of all ranks' Pss (shared pages count once) above that before they began, with TensorFlow imported.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import psutil

from bert_pretrain.config.training import DataConfig
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.schema import Examples, Limits, encode_examples
from bert_pretrain.data.shards import index_tables, tfrecord
from bert_pretrain.data.shards.index_tables import Share

_SEQ_LENGTH, _MAX_PREDICTIONS = 512, 76
_SIZES = (1800, 2900)  # bytes of a record on disk, drawn


def simulate(folder: pathlib.Path, num_shards: int, num_records: int) -> None:
    """Sparse shards in `folder`, and their tables in the cache folder."""
    tokens, slots = np.ones([1, _SEQ_LENGTH], int), np.ones([1, _MAX_PREDICTIONS], int)
    (record,) = encode_examples(Examples(tokens, tokens, 0 * tokens, slots, slots, 1.0 * slots, np.zeros([1], int)))
    first = tfrecord.frame_record(record)
    random = np.random.default_rng(0)
    for number in range(num_shards):
        sizes = random.integers(*_SIZES, num_records)
        sizes[0] = len(first)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        path = folder / f"part-{number:05d}.tfrecord"
        path.write_bytes(first)
        os.truncate(path, int(offsets[-1]))
        index_tables.keep_table(index_tables.identify_shard(str(path)), offsets)


def open_as_rank(folder: str, rank: int, num_ranks: int, together: Any, seconds: Any) -> None:
    """One rank's start; puts how long it took into `seconds`."""
    together.wait()
    together.wait()  # the parent measures memory between the two
    begin = time.monotonic()
    source = Source.open([folder], DataConfig(), Limits(30522, 2), Share(rank, num_ranks))
    records = TrainingInput(source, UpdateShape(24, 6, rank=rank, num_ranks=num_ranks), seed=0).records(0)
    seconds.put(time.monotonic() - begin)
    assert len(records) == 24
    together.wait()


def pss(processes: list) -> int:
    """Bytes of all processes; a shared page counts once."""
    return sum(psutil.Process(process.pid).memory_full_info().pss for process in processes)


def measure(folder: pathlib.Path, num_ranks: int) -> tuple[float, int]:
    """Seconds until the slowest rank has its first update's records, and the memory of all."""
    context = multiprocessing.get_context("spawn")
    together, seconds = context.Barrier(num_ranks + 1), context.Queue()
    ranks = [
        context.Process(target=open_as_rank, args=(str(folder), rank, num_ranks, together, seconds))
        for rank in range(num_ranks)
    ]
    for rank in ranks:
        rank.start()
    together.wait()
    before = highest = pss(ranks)
    together.wait()
    while together.n_waiting < num_ranks:
        highest = max(highest, pss(ranks))
        time.sleep(0.05)
    highest = max(highest, pss(ranks))
    together.wait()
    slowest = max(seconds.get() for _ in ranks)
    for rank in ranks:
        rank.join()
    return slowest, highest - before


def drop_tables() -> None:
    """Removes the tables from the page cache."""
    os.sync()
    for path in index_tables.table_folder().iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--records", type=int, default=300_000, help="of each shard")
    parser.add_argument("--ranks", default="1,4", help="numbers of ranks, separated by commas")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name, "shards")
        folder.mkdir()
        os.environ["BERT_PRETRAIN_CACHE"] = str(pathlib.Path(name, "cache"))
        simulate(folder, arguments.shards, arguments.records)
        print(f"{arguments.shards} simulated shards of {arguments.records} records")
        print("| ranks | tables | seconds | MB |\n|---|---|---|---|")
        for num_ranks in map(int, arguments.ranks.split(",")):
            for state in ("on disk", "in the page cache"):
                if state == "on disk":
                    drop_tables()
                slowest, memory = measure(folder, num_ranks)
                print(f"| {num_ranks} | {state} | {slowest:.2f} | {memory / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
