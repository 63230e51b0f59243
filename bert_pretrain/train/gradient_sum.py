"""The gradient of --rank_invariant: terms in 64-bit fixed point, so its bits do not depend on the order of additions.

Steps are 2^-53, below float32's rounding of any element of magnitude 2^-29 or more. An update's K micro-batches share a
range of 2^9: a micro-batch of which one element is not finite or larger than 2^9 / K (in the gradient of the update's
mean loss, K rounded up to a power of two) makes the gradient NaN, and the update is refused.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from bert_pretrain.data.schema import Batch
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels import fixed_point
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job

MicroBatchGradient = Callable[[tf.Tensor], "tuple[Statistics, list[tf.Tensor]]"]


def count_exactly(world: World, batch: Batch, stop_request: tf.Tensor) -> list[tf.Tensor]:
    """Masked tokens, examples and stop requests of all ranks: float32 scalars, the same bits in any order."""
    unit = tf.constant(2.0**fixed_point.STATISTIC_BITS)
    weights = tf.reduce_sum(tf.cast(tf.round(batch.masked_weights * unit), tf.int64))
    terms = [weights, tf.size(batch.next_sentence_labels, tf.int64), tf.cast(stop_request, tf.int64)]
    (totals,) = world.allreduce([tf.stack(terms)])
    masked, *others = tf.unstack(tf.cast(totals, tf.float32))
    return [masked / unit, *others]


def sum_exactly_over_ranks(
    job: Job,
    micro_batch_gradient: MicroBatchGradient,
    shapes: list[tf.TensorShape],
    num_micro_batches: tf.Tensor,
    loss_scale: tf.Tensor,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients of variables of these shapes, times the loss scale, and Statistics [9]; sums over all ranks."""
    factors = [2.0**fixed_point.GRADIENT_BITS / loss_scale] * len(shapes)
    factors.append(tf.constant(2.0**fixed_point.STATISTIC_BITS))
    sums = _sum_of_rank(job, micro_batch_gradient, factors, num_micro_batches)
    shapes = [*shapes, tf.TensorShape([len(Statistics._fields)])]
    *sums, refused = job.world.allreduce([*map(tf.ensure_shape, sums[:-1], shapes), sums[-1]])
    bad = tf.unstack(refused, num=len(sums))
    *values, statistics = [fixed_point.to_float(*one) for one in zip(sums, bad, factors)]
    return values, statistics


def _sum_of_rank(
    job: Job, micro_batch_gradient: MicroBatchGradient, factors: list[tf.Tensor], num_micro_batches: tf.Tensor
) -> list[tf.Tensor]:
    """int64 sums by variable, then of the statistics, then how many terms of each were refused [variables + 1]."""
    num_terms, backend = job.fixed_micro_batches, job.device.backend

    def add_micro_batch(k: tf.Tensor, refused: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        statistics, gradients = micro_batch_gradient(k)
        terms = [*gradients, tf.stack(statistics)]
        added = [fixed_point.add(*one, num_terms, backend) for one in zip(sums, terms, factors)]
        return (k + 1, refused + tf.stack([bad for _, bad in added]), *(total for total, _ in added))

    nothing, any_shape = tf.zeros([], tf.int64), tf.TensorShape(None)
    _, refused, *sums = tf.while_loop(
        lambda k, *_: k < num_micro_batches,
        add_micro_batch,
        (tf.constant(0), tf.zeros([len(factors)], tf.int64), *(nothing for _ in factors)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([len(factors)]), *(any_shape for _ in factors)),
        parallel_iterations=1,
    )
    return [*sums, refused]
