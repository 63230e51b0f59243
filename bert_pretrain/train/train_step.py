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
from typing import Any, NamedTuple

import tensorflow as tf

from bert_pretrain.data.schema import Batch
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels import fixed_point
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.optim import schedule
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.optim.optimizer import Optimizer, make_optimizer
from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.train import forward, gradient_sum
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job


class Counts(NamedTuple):
    """Sums over all ranks, float32 scalars, known before the first gradient."""

    masked_tokens: tf.Tensor  # weights of the update's masked tokens
    examples: tf.Tensor
    stop_requests: tf.Tensor  # ranks that were asked to stop


class Gradient(NamedTuple):
    """An update's gradient, summed over micro-batches and ranks, still multiplied by the loss scale."""

    values: dict[str, tf.Tensor]  # by variable, float32
    statistics: tf.Tensor  # [9] float32, Statistics
    square_norms: tf.Tensor  # [variables] float32, of the unscaled gradient, in the order of `values`
    norm: tf.Tensor  # float32 scalar, of the unscaled gradient
    is_finite: tf.Tensor  # bool scalar


class UpdateValues(NamedTuple):
    """What an update reports: tensors in the graph, NumPy values after session.run."""

    step: Any  # updates done, this one included
    position: Any  # updates read from the data before this one, skipped ones included
    statistics: Any  # [9], Statistics summed over ranks
    learning_rate: Any
    gradient_norm: Any
    square_norms: Any  # [variables], of the gradient
    is_finite: Any
    loss_scale: Any
    stop_requests: Any  # ranks that were asked to stop
    input_wait_seconds: Any


def build_train_step(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: Batch,
    input_wait_seconds: tf.Tensor,
    stop_request: tf.Tensor,
    global_step: tf.Variable,
) -> tuple[tf.Operation, UpdateValues]:
    """The operation that makes one update, and what it reports. Creates the variables of optimizer and loss scale.

    batch holds this rank's examples; stop_request is 1.0 where this rank was asked to stop, else 0.0.
    """
    optim = job.config.optim
    optimizer = make_optimizer(optim, weights, job.device.backend)
    loss_scale = LossScale(optim.init_loss_scale, dynamic=job.device.compute_dtype == tf.float16)
    step, scale = global_step.read_value(), loss_scale.read()
    position = step + loss_scale.skipped_updates.read_value()

    counts = count_over_ranks(job.world, batch, stop_request, exact=optim.rank_invariant)
    gradient = compute_gradient(job, weights, batch, counts, scale, position)
    peak = schedule.effective_peak(optim, job.world.size, job.config.run.horovod)
    learning_rate = schedule.learning_rate(step, optim, peak)
    train_op = apply_gradient(gradient, optimizer, learning_rate, loss_scale, optim.clip_norm, global_step)

    with tf.control_dependencies([train_op]):
        step_after = global_step.read_value()
    values = gradient.statistics, learning_rate, gradient.norm, gradient.square_norms, gradient.is_finite, scale
    return train_op, UpdateValues(step_after, position, *values, counts.stop_requests, input_wait_seconds)


def count_over_ranks(world: World, batch: Batch, stop_request: tf.Tensor, exact: bool = False) -> Counts:
    """The denominators of the update's two mean losses, and how many ranks were asked to stop.

    The means have different denominators, so both are needed before a gradient can be weighted. The same small
    all-reduce carries the stop requests, so that all ranks stop after the same update. exact: see exact_gradient.py.
    """
    if exact:
        return Counts(*gradient_sum.count_exactly(world, batch, stop_request))
    counts = [
        tf.reduce_sum(batch.masked_weights),
        tf.cast(tf.size(batch.next_sentence_labels), tf.float32),
        stop_request,
    ]
    (totals,) = world.allreduce([tf.stack(counts)])
    return Counts(*tf.unstack(totals))


def compute_gradient(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: Batch,
    counts: Counts,
    loss_scale: tf.Tensor,
    position: tf.Tensor,
) -> Gradient:
    """The gradient of the update's loss over all micro-batches and ranks."""
    if job.fixed_micro_batches:
        grad_sums, statistics = gradient_sum.sum_exactly_over_ranks(
            job,
            lambda k: micro_batch_gradient(job, weights, batch, counts, loss_scale, k, position),
            [weight.shape for weight in weights.values()],
            tf.size(batch.row_splits) - 1,
            loss_scale,
        )
        return measure_gradient(dict(zip(weights, grad_sums)), statistics, loss_scale, exact=True)
    grad_sums, statistics = _accumulate(job, weights, batch, counts, loss_scale, position)
    if job.config.optim.allreduce_fp16:  # float16 is too short for the counts
        grad_sums = job.world.allreduce(grad_sums, half=True)
        (statistics,) = job.world.allreduce([statistics])
    else:
        *grad_sums, statistics = job.world.allreduce([*grad_sums, statistics])
    return measure_gradient(dict(zip(weights, grad_sums)), statistics, loss_scale)


def _accumulate(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: Batch,
    counts: Counts,
    loss_scale: tf.Tensor,
    position: tf.Tensor,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """This rank's sums over its micro-batches: one float32 gradient per variable, and Statistics [9]."""

    def add_micro_batch(k: tf.Tensor, statistics: tf.Tensor, *grad_sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        sums, grads = micro_batch_gradient(job, weights, batch, counts, loss_scale, k, position)
        # The first micro-batch's gradient becomes the sum: no zeros are created and none are added.
        added = tf.cond(k > 0, lambda: [total + grad for total, grad in zip(grad_sums, grads)], lambda: grads)
        return (k + 1, statistics + tf.stack(sums), *added)

    if batch.row_splits.shape[0] == 2:  # one micro-batch in every update
        sums, grads = micro_batch_gradient(job, weights, batch, counts, loss_scale, tf.constant(0), position)
        return grads, tf.stack(sums)
    no_statistics, no_gradient, any_shape = tf.zeros([len(Statistics._fields)]), tf.zeros([]), tf.TensorShape(None)
    _, statistics, *grad_sums = tf.while_loop(
        lambda k, *_: k < tf.size(batch.row_splits) - 1,
        add_micro_batch,
        (tf.constant(0), no_statistics, *(no_gradient for _ in weights)),
        shape_invariants=(tf.TensorShape([]), no_statistics.shape, *(any_shape for _ in weights)),
        parallel_iterations=1,
    )
    return [tf.ensure_shape(grad, weight.shape) for grad, weight in zip(grad_sums, weights.values())], statistics


def micro_batch_gradient(
    job: Job,
    weights: Mapping[str, tf.Variable],
    batch: Batch,
    counts: Counts,
    loss_scale: tf.Tensor,
    k: tf.Tensor,
    position: tf.Tensor,
) -> tuple[Statistics, list[tf.Tensor]]:
    """Sums of micro-batch k, and what it adds to the update's gradient, by variable, multiplied by the loss scale."""
    # tf.gradients needs tensors of the loop's own graph, not those that the loop captures.
    local = {name: tf.identity(weight) for name, weight in weights.items()}
    sums = _forward(job, local, batch, k, position)
    loss = _loss(sums, counts) * loss_scale
    return sums, [compat.dense(grad) for grad in tf.gradients(loss, [*local.values()])]


def _forward(job: Job, weights: Mapping[str, tf.Tensor], batch: Batch, k: tf.Tensor, position: tf.Tensor) -> Statistics:
    """Statistics of micro-batch k, with dropout masks that depend on seed, rank, update and micro-batch alone.

    With --rank_invariant the micro-batch's number over all ranks takes the place of the rank.
    """
    backend, rank, part = job.device.backend, job.world.rank, forward.micro_batch(batch, k)
    if job.fixed_micro_batches:
        rank, k = 0, rank * (job.fixed_micro_batches // job.world.size) + k
        part = part if backend is Backend.XLA else forward.narrow(part)  # XLA's rows have one width
    dropout = Dropout(job.config.run.seed, rank, position, k, hashed=backend is not Backend.PLAIN)
    kernels, recompute = make_kernels(backend), job.config.device.recompute
    return forward.statistics(weights, part, job.model, kernels, dropout, job.device.precision, recompute)


def _loss(sums: Statistics, counts: Counts) -> tf.Tensor:
    """The part that a micro-batch contributes to the update's loss.

    The update's loss is the mean masked-LM loss over all its masked tokens plus the mean next-sentence loss over all
    its examples (google-research/bert, run_pretraining.py, with global instead of per-batch means).
    """
    masked_lm = tf.math.divide_no_nan(sums.masked_lm_loss, counts.masked_tokens)
    return masked_lm + sums.next_sentence_loss / counts.examples


def measure_gradient(
    values: dict[str, tf.Tensor], statistics: tf.Tensor, loss_scale: tf.Tensor, exact: bool = False
) -> Gradient:
    """Adds the norms of the unscaled gradient. One inf or NaN makes the norm not finite."""
    grads = [*values.values()]
    sums = fixed_point.square_sums(grads) if exact else 2.0 * tf.stack([tf.nn.l2_loss(grad) for grad in grads])
    square_norms = sums / tf.square(loss_scale)
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
