"""One training update, top to bottom.

1. The update's masked tokens and examples are counted over all ranks.
2. Forward and backward pass of each micro-batch, in one loop; gradients are added up. One session.run is one update,
   so global_step counts updates and no hook has to know about gradient accumulation.
3. One all-reduce of gradients and statistics.
4. Norms; their sum says whether the gradient is finite.
5. Unscaling and clipping to the global norm, as one factor that the optimizer multiplies in.
6. LAMB or AdamW, the loss scale, the step. An update that is not finite moves nothing but the loss scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model.heads import is_of_pairs
from bert_pretrain.optim import schedule
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.optim.optimizer import Optimizer, SquareSums
from bert_pretrain.optim.optimizers import make_optimizer
from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.train import forward
from bert_pretrain.train.forward import StatisticTensors
from bert_pretrain.train.gradient_sum import Counts, make_gradient_sum
from bert_pretrain.train.job import Job


class Gradient(NamedTuple):
    """An update's gradient, summed over micro-batches and ranks, still multiplied by the loss scale."""

    values: dict[str, tf.Tensor]  # by variable, float32
    statistics: tf.Tensor  # [10] float32, Statistics
    square_norms: tf.Tensor  # [variables] float32, of the unscaled gradient, in the order of `values`
    norm: tf.Tensor  # float32 scalar, of the unscaled gradient
    is_finite: tf.Tensor  # bool scalar


class UpdateTensors(NamedTuple):
    """What an update reports, in the graph."""

    step: tf.Tensor  # updates done, this one included
    updates_read: tf.Tensor  # from the data before this one, skipped ones included
    statistics: tf.Tensor  # [10] float32, Statistics summed over ranks
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor
    square_norms: tf.Tensor  # [variables], of the gradient
    is_finite: tf.Tensor
    loss_scale: tf.Tensor
    stop_requests: tf.Tensor  # ranks that were asked to stop
    input_wait_seconds: tf.Tensor


class UpdateValues(NamedTuple):
    """UpdateTensors after session.run, field by field."""

    step: int
    updates_read: int
    statistics: np.ndarray
    learning_rate: float
    gradient_norm: float
    square_norms: np.ndarray
    is_finite: bool
    loss_scale: float
    stop_requests: float
    input_wait_seconds: float


assert UpdateValues._fields == UpdateTensors._fields


def build_train_step(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: BatchTensors,
    input_wait_seconds: tf.Tensor,
    stop_request: tf.Tensor,
    global_step: tf.Variable,
) -> tuple[tf.Operation, UpdateTensors]:
    """The operation that makes one update, and what it reports. Creates the variables of optimizer and loss scale.

    batch holds this rank's examples; stop_request is 1.0 where this rank was asked to stop, else 0.0.
    """
    optim, gradient_sum = job.config.optim, make_gradient_sum(job)
    optimizer = make_optimizer(optim, weights, job.device.backend, gradient_sum.square_sums)
    # An update's loss is a mean over all its micro-batches, so that each one's gradient is that much smaller.
    initial_scale = optim.init_loss_scale * job.update_sizes.of(0) / job.config.data.train_batch_size
    loss_scale = LossScale(initial_scale, dynamic=job.device.compute_dtype == tf.float16)
    step, scale = global_step.read_value(), loss_scale.read()
    updates_read = step + loss_scale.skipped_updates.read_value()

    # The two mean losses have different denominators, so both are needed before a gradient can be weighted. The same
    # small all-reduce carries the stop requests, so that all ranks stop after the same update.
    counts = gradient_sum.count(batch, stop_request)
    gradient = compute_gradient(job, weights, batch, counts, scale, updates_read)
    if not optim.next_sentence_weight:  # weight decay, too, leaves alone what is not trained
        trained = {name: value for name, value in gradient.values.items() if not is_of_pairs(name)}
        gradient = gradient._replace(values=trained)
    peak = schedule.effective_peak(optim, job.world.size, job.config.run.horovod)
    learning_rate = schedule.learning_rate(step, optim, peak)
    train_op = apply_gradient(gradient, optimizer, learning_rate, loss_scale, optim.clip_norm, global_step)

    with tf.control_dependencies([train_op]):
        step_after = global_step.read_value()
    values = gradient.statistics, learning_rate, gradient.norm, gradient.square_norms, gradient.is_finite, scale
    return train_op, UpdateTensors(step_after, updates_read, *values, counts.stop_requests, input_wait_seconds)


def compute_gradient(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: BatchTensors,
    counts: Counts,
    loss_scale: tf.Tensor,
    updates_read: tf.Tensor,
) -> Gradient:
    """The gradient of the update's loss over all micro-batches and ranks."""
    gradient_sum = make_gradient_sum(job)
    grad_sums, statistics = gradient_sum.over_ranks(
        lambda k: micro_batch_gradient(job, weights, batch, counts, loss_scale, k, updates_read),
        [weight.shape for weight in weights.values()],
        batch,
        loss_scale,
    )
    return measure_gradient(dict(zip(weights, grad_sums)), statistics, loss_scale, gradient_sum.square_sums)


def micro_batch_gradient(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: BatchTensors,
    counts: Counts,
    loss_scale: tf.Tensor,
    k: tf.Tensor,
    updates_read: tf.Tensor,
) -> tuple[StatisticTensors, list[tf.Tensor]]:
    """Sums of micro-batch k, and what it adds to the update's gradient, by variable, multiplied by the loss scale."""
    # tf.gradients needs tensors of the loop's own graph, not those that the loop captures.
    local = {name: tf.identity(weight) for name, weight in weights.items()}
    sums = _forward(job, local, batch, k, updates_read)
    loss = _loss(sums, counts, job.config.optim.next_sentence_weight) * loss_scale
    grads = tf.gradients(loss, [*local.values()], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return sums, [compat.dense(grad) for grad in grads]


def _forward(
    job: Job, weights: Mapping[str, tf.Tensor], batch: BatchTensors, k: tf.Tensor, updates_read: tf.Tensor
) -> StatisticTensors:
    """Statistics of micro-batch k, with dropout masks that depend on seed, rank, update and micro-batch alone."""
    backend, gradient_sum = job.device.backend, make_gradient_sum(job)
    rank, number = gradient_sum.dropout_place(batch, k)
    dropout = Dropout(job.config.run.seed, rank, updates_read, number, hashed=backend is not Backend.PLAIN)
    kernels, recompute, part = make_kernels(backend), job.config.device.recompute, gradient_sum.micro_batch(batch, k)
    precision, next_sentence = job.device.precision, job.config.optim.next_sentence_weight > 0
    return forward.forward_pass(
        weights, part, job.model, kernels, dropout, precision, recompute, next_sentence
    ).statistics


def _loss(sums: StatisticTensors, counts: Counts, next_sentence_weight: float) -> tf.Tensor:
    """The part that a micro-batch contributes to the update's loss.

    The update's loss is the mean masked-LM loss over all its masked tokens plus the mean next-sentence loss over all
    its examples, times its weight (google-research/bert, run_pretraining.py, with global instead of per-batch means).
    """
    masked_lm = tf.math.divide_no_nan(sums.masked_lm_loss, counts.masked_tokens)
    return masked_lm + next_sentence_weight * (sums.next_sentence_loss / counts.examples)


def measure_gradient(
    values: dict[str, tf.Tensor], statistics: tf.Tensor, loss_scale: tf.Tensor, square_sums: SquareSums
) -> Gradient:
    """Adds the norms of the unscaled gradient. One inf or NaN makes the norm not finite."""
    square_norms = square_sums([*values.values()]) / tf.square(loss_scale)
    norm = tf.sqrt(tf.reduce_sum(square_norms))
    return Gradient(values, statistics, square_norms, norm, tf.math.is_finite(norm))


def apply_gradient(
    gradient: Gradient,
    optimizer: Optimizer,
    learning_rate: tf.Tensor,
    loss_scale: LossScale,
    clip_norm: float,
    global_step: tf.Variable,
) -> tf.Operation:
    """Moves the weights and advances global_step; where the gradient is not finite, only lowers the loss scale.

    clip_norm 0 turns clipping off.
    """
    clip = tf.minimum(1.0, clip_norm / gradient.norm) if clip_norm else tf.constant(1.0)

    def update() -> tf.Tensor:
        with tf.control_dependencies([optimizer.apply(gradient.values, learning_rate, clip / loss_scale.read())]):
            return _done(loss_scale.after_good_update(), global_step.assign_add(1))

    def skip() -> tf.Tensor:
        return _done(loss_scale.after_bad_update())

    return tf.cond(gradient.is_finite, update, skip).op


def _done(*operations: tf.Operation) -> tf.Tensor:
    with tf.control_dependencies([tf.group(*operations)]):
        return tf.constant(True)
