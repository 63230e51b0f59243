"""This project's training updates as a worker: `python -m benchmarks.ours SETTINGS.json`.

The workers ours_float32, ours_float16 and ours_bfloat16 have `--noamp` and that `--amp_dtype`.

The graph is that of bert_pretrain.run: the same input, update and session settings; only Estimator and the hook, which
cost microseconds, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.settings import Settings
from benchmarks.worker import Step, serve, timed
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.data.dataset import Lengths, Source
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput, UpdateShape
from bert_pretrain.data.schema import Batch, Limits
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import variables
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import device, forward, throughput, train_step
from bert_pretrain.train.job import Job

_PRECISION = {
    "ours": {},
    "ours_float32": {"amp": False},
    "ours_float16": {"amp_dtype": "float16"},
    "ours_bfloat16": {"amp_dtype": "bfloat16"},
}
# Of the matrices whose products a GPU's rate is measured with: milliseconds, far above a launch's time.
_GPU_SIZE = 8192


class Ours:
    """Training updates of this project."""

    def __init__(self, settings: Settings) -> None:
        self.versions = {"tensorflow": tf.__version__}
        self._settings = settings
        model = ModelConfig.from_json(settings.model_config)
        source = open_source(settings.shards, settings.seq_length, settings.max_predictions, model)
        config = _config(settings)
        job = Job(config, model, World(), device.choose_device(config.device, set(), width=model.hidden_size))
        with tf.Graph().as_default():
            weights = variables.create_variables(model, settings.seed)
            first, rewind = EvaluationInput(source, settings.batch_size, pack=False).tensors()
            sums = forward.forward_pass(weights, batch_of(first), model, make_kernels(Backend.PLAIN)).statistics
            training_input = TrainingInput(
                source,
                UpdateShape(
                    config.examples_per_rank(),
                    settings.batch_size,
                    config.data.pack_sequences,
                    few_shapes=job.device.backend.is_compiled,
                ),
                settings.seed,
            )
            features = training_input()
            step = tf.compat.v1.train.get_or_create_global_step()
            self._operation, values = train_step.build_train_step(
                job, weights, batch_of(features), features["input_wait_seconds"], tf.constant(0.0), step
            )
            self._watched = [forward.mean_loss(values.statistics), values.statistics]
            self._model, self._device = model, job.device
            self._session_config = device.session_config(config.device, 0)
            with np.load(settings.weights) as start:
                self._session = start_session(self._session_config, weights, start)
            self._back_to_the_start = training_input.initializer
            self._session.run([rewind, training_input.initializer])
            self._first_loss = float(self._session.run(forward.mean_loss(tf.stack(sums))))

    def first_loss(self) -> float:
        return self._first_loss

    def begin_turn(self) -> None:
        """Back to the first update, so that what was compiled in the warm-up serves; its lengths come again."""
        self._session.run(self._back_to_the_start)

    def matmul_flops(self) -> float:
        size = {"size": _GPU_SIZE} if self._device.is_gpu else {}
        return throughput.matmul_rate(self._session_config, self._device.compute_dtype, **size)

    def step(self) -> Step:
        done = timed(self._update, self._settings)
        return done._replace(useful_flops=throughput.training_flops(self._sums, self._model))

    def trace(self) -> tf.compat.v1.RunMetadata:
        """Does one update; returns TensorFlow's record of its operations."""
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        self._session.run(self._operation, options=options, run_metadata=metadata)
        return metadata

    def _update(self) -> float:
        (loss, sums), _ = self._session.run([self._watched, self._operation])
        self._sums = forward.Statistics(*sums.astype(np.float64))  # NumPy 2 would compute FLOPs in float32
        return float(loss)


def open_source(shards: Sequence[str], seq_length: int, max_predictions: int, model: ModelConfig) -> Source:
    """The records of these files."""
    limits = Limits(model.vocab_size, model.type_vocab_size)
    return Source(ShardIndex(shards), Lengths(seq_length, max_predictions), limits)


def start_session(
    config: tf.compat.v1.ConfigProto, weights: dict[str, tf.Variable], start: Mapping[str, np.ndarray]
) -> tf.compat.v1.Session:
    """A session of the default graph whose weights have these first values, by name; other variables have their own."""
    session = tf.compat.v1.Session(config=config)
    values = {weight.initializer.inputs[1]: start[name] for name, weight in weights.items()}
    session.run(tf.compat.v1.global_variables_initializer(), values)
    return session


def _config(settings: Settings) -> Config:
    return Config(
        RunConfig(seed=settings.seed),
        DataConfig(train_batch_size=settings.batch_size),
        OptimConfig(
            optimizer_type=settings.optimizer,
            learning_rate=settings.learning_rate,
            num_warmup_steps=0,
            num_train_steps=10**9,
            num_accumulation_steps=settings.num_accumulation_steps,
        ),
        DeviceConfig(intra_op_threads=settings.num_threads, **_PRECISION[settings.worker]),
    )


def batch_of(features: Mapping[str, Any]) -> Batch:
    """The Batch of an input's features, tensors or their values."""
    return Batch(*(features[name] for name in Batch._fields))


if __name__ == "__main__":
    serve(Ours)
