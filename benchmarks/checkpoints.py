"""Saving checkpoints of BERT-base with LAMB's slots while updates run: `python -m benchmarks.checkpoints`.

Prints for how long each save stopped training, how long the write took beside it, and the updates' seconds meanwhile.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import DeviceConfig, OptimConfig, RunConfig
from bert_pretrain.model import variables
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.run_files.results import peak_memory_bytes
from bert_pretrain.train import device

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs" / "model"


class Saved(NamedTuple):
    """One checkpoint; seconds."""

    pause: float
    write: float  # from the end of the pause to the file `checkpoint`
    update: float  # median of the updates during the write
    alone: float  # median of the updates before


def measure(model: ModelConfig, output_dir: str, count: int, updates: int) -> list[Saved]:
    """Saves `count` checkpoints, with as many updates as given between them."""
    run = RunConfig(output_dir=output_dir, keep_checkpoint_max=2)
    with tf.Graph().as_default(), CheckpointWriter(run, []) as writer:
        weights = variables.create_variables(model, seed=0)
        backend = device.choose_device(DeviceConfig(), set()).backend
        rule = Lamb(OptimConfig(), weights, backend)
        gradients = {name: tf.fill(weight.shape, 1e-3) for name, weight in weights.items()}
        update = rule.apply(gradients, tf.constant(1e-4), tf.constant(1.0))
        writer.build(backend)
        with tf.compat.v1.Session(config=device.session_config(DeviceConfig(), 0)) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            writer.start_at(0)
            saved = [_save(session, update, writer, step, updates) for step in range(1, count + 1)]
            writer.finish()
    return saved


def _save(session: tf.compat.v1.Session, update: tf.Operation, writer: CheckpointWriter, step: int, n: int) -> Saved:
    alone = [_seconds(session, update) for _ in range(n)]
    writer.save(session, step)
    begin, during = time.perf_counter(), []
    while writer.is_writing:
        during.append(_seconds(session, update))
    write = time.perf_counter() - begin
    return Saved(writer.pauses[-1], write, statistics.median(during), statistics.median(alone))


def _seconds(session: tf.compat.v1.Session, update: tf.Operation) -> float:
    begin = time.perf_counter()
    session.run(update)
    return time.perf_counter() - begin


def main() -> None:
    """Prints a line for each checkpoint, and the sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="base", help="A name in configs/model.")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10, help="Updates between two checkpoints.")
    parser.add_argument("--directory", help="Where to write; default: the directory for temporary files.")
    arguments = parser.parse_args()
    model = ModelConfig.from_json(str(_CONFIGS / f"{arguments.model}.json"))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as output_dir:
        saved = measure(model, output_dir, arguments.count, arguments.updates)
        newest = checkpoint_files.prefix_of(output_dir, arguments.count)
        size = sum(map(os.path.getsize, [f"{newest}.index", *checkpoint_files.data_files(newest)]))
    print("| checkpoint | pause s | write s | update s during the write | update s otherwise |\n|---|---|---|---|---|")
    for number, one in enumerate(saved, start=1):
        print(f"| {number} | {one.pause:.3f} | {one.write:.2f} | {one.update:.3f} | {one.alone:.3f} |")
    pauses = [one.pause for one in saved]
    print(f"\npause: median {statistics.median(pauses):.3f} s, longest {max(pauses):.3f} s")
    print(f"{size:,} bytes each; peak memory {peak_memory_bytes():,} bytes")


if __name__ == "__main__":
    main()
