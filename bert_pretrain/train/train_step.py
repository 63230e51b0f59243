"""One update as a graph: counts, gradient, rate, optimizer, and what it shows to the outside."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from bert_pretrain.data.schema import Batch
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import kernels_of
from bert_pretrain.model.layers import Weights
from bert_pretrain.optim import schedule, train_op
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.train import forward
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job


class Watched(NamedTuple):
    """What an update shows: tensors in the graph, NumPy values after a session's run."""

    step: Any  # updates done, this one included
    position: Any  # updates read from the data before this one; skipped ones count
    statistics: Any  # [9], Statistics summed over ranks
    learning_rate: Any
    gradient_norm: Any
    square_norms: Any  # [variables], of the gradients
    finite: Any
    loss_scale: Any
    stop_requested: Any  # ranks that were told to stop
    input_wait_seconds: Any


def build(
    job: Job,
    batch: Batch,
    input_wait_seconds: tf.Tensor,
    stop: tf.Tensor,
    weights: Mapping[str, tf.Variable],
    step: tf.Variable,
) -> tuple[tf.Operation, Watched]:
    """The operation that makes one update; creates the optimizer's and the loss scale's variables.

    batch is this rank's share; stop is 1.0 where this rank was told to stop.
    """
    optim = job.config.optim
    rule = train_op.optimizer(optim, weights, job.backend)
    loss_scale = LossScale(optim.init_loss_scale, dynamic=job.compute_dtype == tf.float16)
    step_before, scale = step.read_value(), loss_scale.value.read_value()
    position = step_before + loss_scale.skipped_updates.read_value()
    found, stop_requested = gradient(job, batch, weights, scale, position, stop)
    peak = schedule.effective_peak(optim, job.world.size, job.config.run.horovod)
    rate = schedule.learning_rate(step_before, optim, peak)
    operation = train_op.apply(found, rule, rate, loss_scale, optim.clip_norm, step)
    with tf.control_dependencies([operation]):
        step_after = step.read_value()
    return operation, Watched(
        step=step_after,
        position=position,
        statistics=found.statistics,
        learning_rate=rate,
        gradient_norm=found.norm,
        square_norms=found.square_norms,
        finite=found.finite,
        loss_scale=scale,
        stop_requested=stop_requested,
        input_wait_seconds=input_wait_seconds,
    )


def gradient(
    job: Job,
    batch: Batch,
    weights: Mapping[str, tf.Variable],
    loss_scale: tf.Tensor,
    position: tf.Tensor,
    stop: tf.Tensor,
) -> tuple[train_op.Gradient, tf.Tensor]:
    """The gradient of the update's loss over all ranks, and the number of ranks that were told to stop.

    The loss is the mean masked-LM loss over all masked tokens of the update plus the mean next-sentence loss over
    all its examples (facts 3.5, with the global counts of design 5.1).
    """
    # The two means have different denominators, so both must be known before a gradient can be weighted; the same
    # small exchange carries the ranks' wish to stop, so that all stop after the same update.
    counts = [tf.reduce_sum(batch.masked_weights), tf.cast(tf.size(batch.next_sentence_labels), tf.float32), stop]
    (counts,) = job.world.allreduce([tf.stack(counts)])
    masked_lm_count, next_sentence_count, stop_requested = tf.unstack(counts)

    kernels, hashed = kernels_of(job.backend), job.backend is not Backend.PLAIN

    def micro_batch(k: tf.Tensor, local: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        dropout = Dropout(job.config.run.seed, job.world.rank, position, k, hashed)
        part = forward.micro_batch(batch, k)
        sums = forward.statistics(
            local, part, job.model, kernels, dropout, job.compute_dtype, job.config.device.recompute
        )
        loss = tf.math.divide_no_nan(sums.masked_lm_loss, masked_lm_count)
        return loss + sums.next_sentence_loss / next_sentence_count, tf.stack(sums)

    found = train_op.gradient(
        micro_batch,
        tf.size(batch.row_splits) - 1,
        len(Statistics._fields),
        weights,
        loss_scale,
        functools.partial(_sum_over_ranks, job),
    )
    return found, stop_requested


def _sum_over_ranks(job: Job, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients and, last, statistics: all in one exchange, but for float16, which is too short for counts."""
    if not job.config.optim.allreduce_fp16:
        return job.world.allreduce(tensors)
    return [*job.world.allreduce(tensors[:-1], half=True), *job.world.allreduce(tensors[-1:])]


def loss(statistics: tf.Tensor) -> tf.Tensor:
    """[9] Statistics -> mean masked-LM loss plus mean next-sentence loss, nats."""
    sums = Statistics(*tf.unstack(statistics))
    return tf.math.divide_no_nan(sums.masked_lm_loss, sums.masked_lm_count) + tf.math.divide_no_nan(
        sums.next_sentence_loss, sums.next_sentence_count
    )
