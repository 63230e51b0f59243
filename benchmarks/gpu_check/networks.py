"""The same network on the device that is checked and on the CPU: its logits, and one update."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import inputs
from benchmarks.ours import batch_of, open_source, start_session
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import encoder, heads, variables
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import device, forward, train_step
from bert_pretrain.train.device import Device
from bert_pretrain.train.job import Job

_SEQ_LENGTH, _MAX_PREDICTIONS = 512, 76
_MOST_ATTEMPTS = 16  # of an update whose loss scale is too large at first; each halves it


class Case(NamedTuple):
    """What both sides compute."""

    model: ModelConfig  # without dropout
    start: dict[str, np.ndarray]  # variable -> first value
    batch: BatchTensors  # one micro-batch


class Side(NamedTuple):
    """Where and how a network is computed."""

    device: Device
    session_config: tf.compat.v1.ConfigProto


class Update(NamedTuple):
    """One update with LAMB."""

    loss: float
    moments: dict[str, np.ndarray]  # LAMB's m: the clipped gradient times 1 - beta_1
    steps: dict[str, np.ndarray]  # what the update added to each variable
    loss_scale: float
    num_skipped: int  # attempts whose gradient was not finite


def make_case(model_json: str, num_examples: int, directory: str) -> Case:
    """Random first weights and examples of Wikipedia's lengths, packed as for XLA's kernels."""
    model = ModelConfig.from_json(model_json)
    inputs.make_weights(f"{directory}/weights.npz", model)
    shards = inputs.make_shards(f"{directory}/shards", "wiki", _SEQ_LENGTH, _MAX_PREDICTIONS, max(64, num_examples))
    with np.load(f"{directory}/weights.npz") as stored:
        start = dict(stored)
    source = open_source(shards, _SEQ_LENGTH, _MAX_PREDICTIONS, model)
    with tf.Graph().as_default():
        training_input = TrainingInput(source, UpdateShape(num_examples, num_examples, few_shapes=True), seed=0)
        features = training_input()
        with tf.compat.v1.Session(config=_cpu_only()) as session:
            session.run(training_input.initializer)
            values = session.run(features)
    without_dropout = dataclasses.replace(model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return Case(without_dropout, start, batch_of(values))


def reference() -> Side:
    """float32 and TensorFlow's own operations on the CPU."""
    return Side(Device("cpu", False, 0, tf.float32, Backend.PLAIN, []), _cpu_only())


def checked(dtype: str) -> Side:
    """The device that a run takes, with XLA's kernels.

    A CPU has activations in float16, as GPUs do, but in float32 with bfloat16, as in a run. With bfloat16, TensorFlow's
    CPU kernel would sum a bias's gradient in bfloat16, wrong in the first digit; its GPU kernel sums in float32.
    """
    config = DeviceConfig(native_kernels=False)
    chosen = device.choose_device(config, set())
    is_gpu = chosen.is_gpu or dtype != "bfloat16"
    chosen = chosen._replace(is_gpu=is_gpu, compute_dtype=tf.as_dtype(dtype), backend=Backend.XLA)
    return Side(chosen, device.session_config(config, chosen.gpu))


def logits(case: Case, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Of masked tokens [M, V] and of examples [E, 2]."""
    with tf.Graph().as_default():
        weights, batch = variables.create_variables(case.model, seed=0), BatchTensors(*map(tf.constant, case.batch))
        kernels, rows = make_kernels(side.device.backend), encoder.Rows(*batch[:4])
        sequence = encoder.encode(weights, rows, case.model, kernels, precision=side.device.precision)
        outputs = (
            heads.masked_lm_logits(weights, sequence, batch.masked_positions),
            heads.next_sentence_logits(weights, sequence, batch.cls_positions),
        )
        with start_session(side.session_config, weights, case.start) as session:
            return session.run(outputs)


def update(case: Case, side: Side) -> Update:
    """One update at a learning rate of 1. RuntimeError where its gradient is not finite at any loss scale."""
    optim = OptimConfig(learning_rate=1.0, num_warmup_steps=0)
    config = Config(RunConfig(), DataConfig(train_batch_size=len(case.batch.cls_positions)), optim, DeviceConfig())
    job = Job(config, case.model, World(), side.device)
    with tf.Graph().as_default():
        weights, batch = variables.create_variables(case.model, seed=0), BatchTensors(*map(tf.constant, case.batch))
        global_step, zero = tf.compat.v1.train.get_or_create_global_step(), tf.constant(0.0)
        operation, values = train_step.build_train_step(job, weights, batch, zero, zero, global_step)
        slots = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        with start_session(side.session_config, weights, case.start) as session:
            loss, loss_scale, num_skipped = _run_until_finite(session, values, operation)
            moments = session.run({name: slots[f"{name}/LAMB"] for name in weights})
            after = session.run(dict(weights))
    steps = {name: after[name] - case.start[name] for name in after}
    return Update(loss, moments, steps, loss_scale, num_skipped)


def _run_until_finite(
    session: tf.compat.v1.Session, values: train_step.UpdateValues, operation: tf.Operation
) -> tuple[float, float, int]:
    """Repeats an update until its gradient is finite: its loss, its loss scale, and how many were skipped."""
    loss_scale = None
    for num_skipped in range(_MOST_ATTEMPTS):
        fetches = [values.is_finite, values.loss_scale, forward.mean_loss(values.statistics), operation]
        is_finite, loss_scale, loss, _ = session.run(fetches)
        if is_finite:
            return float(loss), float(loss_scale), num_skipped
    raise RuntimeError(f"the gradient is not finite at a loss scale of {loss_scale}")


def _cpu_only() -> tf.compat.v1.ConfigProto:
    return tf.compat.v1.ConfigProto(device_count={"GPU": 0})
