"""Whole training runs: in this process, or in one of their own where they are killed."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.distributed import connection
from bert_pretrain.model import variables
from bert_pretrain.train import job, loop
from tests import forked
from tests.golden import checkpoint as golden
from tests.train.small import MODEL, write_shards

WITH_DROPOUT = dataclasses.replace(MODEL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)


def write_model(path: Path, model: ModelConfig = WITH_DROPOUT) -> str:
    """A bert_config.json; returns its path."""
    path.write_text(json.dumps(dataclasses.asdict(model)))
    return str(path)


def write_mlperf_checkpoint(prefix: str, model: ModelConfig) -> None:
    """A checkpoint with the 1,197 names of MLPerf's model.ckpt-28252 and random values, for a model of its depth."""
    random, shapes = np.random.default_rng(0), variables.variable_shapes(model)
    names = list(golden.entries())
    values = []
    for name in names:
        shape = shapes.get(re.sub("/LAMB(_1)?$", "", name), ())
        value = random.random(shape, np.float32) * np.float32(0.02)
        values.append(tf.constant(28252, tf.int64) if name == "global_step" else tf.convert_to_tensor(value))
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)


def make_data(root: Path) -> dict[str, str]:
    """Shards for training and evaluation and a model; returns the settings that point at them."""
    return {
        "input_files_dir": write_shards(root / "train", 0, [40, 30, 50]),
        "eval_files_dir": write_shards(root / "eval", 1, [503, 500]),
        "bert_config_file": write_model(root / "bert_config.json"),
    }


def settings(**changes: object) -> dict[str, object]:
    """Twelve updates of 2 x 3 examples, a checkpoint every five; never XLA, which compiles longer than they take."""
    return {
        "do_train": True,
        "train_batch_size": 3,
        "num_accumulation_steps": 2,
        "num_train_steps": 12,
        "num_warmup_steps": 2,
        "learning_rate": 1e-2,
        "save_checkpoints_steps": 5,
        "display_loss_steps": 1,
        "eval_batch_size": 24,
        "use_xla": False,
        "peak_tflops": 1.0,  # measuring it takes as long as the run
        **changes,
    }


def make_config(**values: object) -> Config:
    """A Config from flat settings."""
    parts, explicit_flags = {}, frozenset(values)
    for name, kind in PARTS.items():
        own = {field.name for field in dataclasses.fields(kind)} & set(values)
        parts[name] = kind(**{key: values.pop(key) for key in own})
    assert not values, f"no such settings: {sorted(values)}"
    return Config(**parts, explicit_flags=explicit_flags)


def train(**values: object) -> dict[str, object]:
    """Runs in this process; returns results.json."""
    config = make_config(**values)
    config.check()
    with connection.connected(config.run.horovod) as ranks:
        config = job.with_local_paths(config, ranks)
        assert loop.run_job(config, ranks) == 0
    return json.loads((Path(config.run.output_dir) / "results.json").read_text())


def flags(**values: object) -> list[str]:
    """The settings as a command line."""
    return [f"--{name}={value}" for name, value in values.items()]


def start(arguments: list[str], before: str = "", seconds: float = 300) -> subprocess.CompletedProcess:
    """Runs bert_pretrain.run in a process of its own; `before` is Python that the process executes first."""
    return forked.run_module("bert_pretrain.run", arguments, before, seconds)


def signal_after(update: int, name: str = "SIGKILL") -> str:
    """Python for start(): the process sends itself a signal after an update, once no checkpoint is being written."""
    return f"""
import os, signal, time
from bert_pretrain.train.hooks import TrainingHook
report = TrainingHook._report
def reporting(self, update):
    report(self, update)
    if self._step == {update}:
        while self._writer.is_writing:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.{name})
TrainingHook._report = reporting
"""


def tensors(prefix: Path) -> dict[str, np.ndarray]:
    """Everything that a checkpoint holds."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def metrics(output_dir: Path, kind: str) -> list[dict]:
    """The points of one kind in metrics.jsonl."""
    lines = (output_dir / "metrics.jsonl").read_text().splitlines()
    return [point for point in map(json.loads, lines) if point["kind"] == kind]
