"""Training from a bucket beside training from a disk: examples/s in turns, with requests that fail.

    python -m benchmarks.storage [--rounds=3] [--updates=12] [--failing=0.01] [--records=8192]

small-512 is trained in a process for each turn: shards on the disk; shards in a bucket, read by ranges; shards in a
bucket, copied into --cache_dir. The bucket is of an S3 server on this machine (moto's), which takes its share of the
cores while it answers. A proxy before it makes --failing of the GETs fail: 500, 503, resets, truncated bodies, wrong
bytes, a third of a second's delay. Index tables and copies are made before the first turn. Examples/s are those of
results.json, without the first update. Prints a Markdown table; the weights of all turns must be the same bits.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import inputs
from tests.storage import servers

MODEL = pathlib.Path(__file__).parents[1] / "configs" / "model" / "small.json"
WAYS = ("disk", "s3 by ranges", "s3 with --cache_dir")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=6, help="Examples of a micro-batch; an update has two.")
    parser.add_argument("--failing", type=float, default=0.01, help="Share of the GETs of objects that fail.")
    parser.add_argument("--records", type=int, default=8192)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="storage-"))
    try:
        with servers.s3_server() as address:
            _measure(arguments, folder, servers.FaultyProxy(address))
    finally:
        shutil.rmtree(folder)


def _measure(arguments: argparse.Namespace, folder: pathlib.Path, proxy: servers.FaultyProxy) -> None:
    os.environ.update({**servers.KEYS, "AWS_ENDPOINT_URL": proxy.address})
    paths = inputs.make_shards(str(folder / "shards"), "wiki", 512, 76, arguments.records)
    _upload(paths)
    draw = random.Random(0)
    proxy.choose = lambda number, path: draw.choice(servers.FAULTS) if draw.random() < arguments.failing else None
    for way in WAYS:
        _train(arguments, folder, way, updates=1)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    waits: dict[str, list[float]] = {way: [] for way in WAYS}
    gets = dict.fromkeys(WAYS, 0)
    weights = []
    for number in range(arguments.rounds):
        for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
            before = proxy.num_gets
            results, values = _train(arguments, folder, way, arguments.updates)
            gets[way] += proxy.num_gets - before
            rates[way].append(results["examples_per_second"])
            waits[way].append(results["input_wait_share"] or 0.0)
            weights.append(values)
            print(f"round {number + 1}, {way}: {rates[way][-1]:.2f} examples/s", file=sys.stderr, flush=True)
    same = all(np.array_equal(one[name], weights[0][name]) for one in weights for name in weights[0])
    _print(rates, waits, gets, proxy)
    print(f"weights of all {len(weights)} turns: {'the same bits' if same else 'THEY DIFFER'}")
    sys.exit(0 if same else 1)


def _upload(paths: list[str]) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="shards")
    for path in paths:
        client.upload_file(path, "shards", f"data/{os.path.basename(path)}")


def _train(
    arguments: argparse.Namespace, folder: pathlib.Path, way: str, updates: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """results.json of a run, and its weights."""
    output_dir = folder / "run"
    shutil.rmtree(output_dir, ignore_errors=True)
    flags = {
        "input_files_dir": folder / "shards" if way == "disk" else "s3://shards/data",
        "bert_config_file": MODEL,
        "output_dir": output_dir,
        "train_batch_size": arguments.batch_size,
        "num_accumulation_steps": 2,
        "num_train_steps": updates,
        "num_warmup_steps": 1,
        "save_checkpoints_steps": 10**6,
        "peak_tflops": 1.0,
        **({"cache_dir": folder / "copies"} if way == WAYS[2] else {}),
    }
    command = [sys.executable, "-m", "bert_pretrain.run", "--do_train", *(f"--{k}={v}" for k, v in flags.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reader = tf.train.load_checkpoint(str(output_dir / f"model.ckpt-{updates}"))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return json.loads((output_dir / "results.json").read_text()), values


def _print(
    rates: dict[str, list[float]], waits: dict[str, list[float]], gets: dict[str, int], proxy: servers.FaultyProxy
) -> None:
    print("| shards | examples/s, median | of the disk's, median of rounds | waits for input | GETs |")
    print("|---|---|---|---|---|")
    for way, found in rates.items():
        ratio = statistics.median(one / disk for one, disk in zip(found, rates[WAYS[0]]))
        print(
            f"| {way} | {statistics.median(found):.2f} | {ratio:.3f} | {statistics.median(waits[way]):.2%} | "
            f"{gets[way]} |"
        )
    print(f"faults: {dict(proxy.faults)}")


if __name__ == "__main__":
    main()
