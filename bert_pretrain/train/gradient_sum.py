"""How an update's terms are added up over micro-batches and ranks: in float32, or exactly with --rank_invariant.

The exact sum is in 64-bit fixed point, so its bits do not depend on the order of additions. Micro-batches and dropout
masks do not depend on the number of ranks then. Steps are 2^-53, below float32's rounding of any element of magnitude
2^-29 or more. An update's K micro-batches share a range of 2^9: a micro-batch of which one element is not finite or
larger than 2^9 / K (in the gradient of the update's mean loss, K rounded up to a power of two) makes the gradient NaN,
and the update is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

import tensorflow as tf

from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.kernels import fixed_point, xla
from bert_pretrain.optim import optimizer
from bert_pretrain.tensorflow_compat.typed import ANY_SHAPE
from bert_pretrain.train import forward
from bert_pretrain.train.forward import Statistics, StatisticTensors
from bert_pretrain.train.job import Job

# k -> the sums of micro-batch k, and what it adds to the gradient, a float32 tensor for each variable.
MicroBatchGradient = Callable[[tf.Tensor], "tuple[StatisticTensors, list[tf.Tensor]]"]


class Counts(NamedTuple):
    """Sums over all ranks, float32 scalars, known before the first gradient."""

    masked_tokens: tf.Tensor  # weights of the update's masked tokens
    examples: tf.Tensor
    stop_requests: tf.Tensor  # ranks that were asked to stop


class PlainSum:
    """Float32 sums."""

    def __init__(self, job: Job) -> None:
        self._job, self._world = job, job.world

    def count(self, batch: BatchTensors, stop_request: tf.Tensor) -> Counts:
        """The counts of all ranks, in one small all-reduce; stop_request is 1.0 where this rank was asked to stop."""
        counts = [
            tf.reduce_sum(batch.masked_weights),
            tf.cast(tf.size(batch.next_sentence_labels), tf.float32),
            stop_request,
        ]
        (totals,) = self._world.allreduce([tf.stack(counts)])
        return Counts(*tf.unstack(totals))

    def micro_batch(self, batch: BatchTensors, k: tf.Tensor) -> BatchTensors:
        """The rows of this rank's micro-batch k."""
        return forward.micro_batch(batch, k)

    def dropout_place(self, batch: BatchTensors, k: tf.Tensor) -> tuple[int, tf.Tensor]:
        """Rank and micro-batch as they decide the dropout masks of this rank's micro-batch k."""
        return self._world.rank, k

    def over_ranks(
        self,
        micro_batch_gradient: MicroBatchGradient,
        shapes: Sequence[tf.TensorShape],
        batch: BatchTensors,
        loss_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients of variables of these shapes, times the loss scale, and Statistics [10]; sums over all ranks."""
        grad_sums, statistics = self._of_rank(micro_batch_gradient, shapes, batch)
        if self._job.config.optim.allreduce_fp16:  # float16 is too short for the counts
            grad_sums = self._world.allreduce(grad_sums, half=True)
            (statistics,) = self._world.allreduce([statistics])
        else:
            *grad_sums, statistics = self._world.allreduce([*grad_sums, statistics])
        return grad_sums, statistics

    def square_sums(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """[N] float32: the sum of squares of each of N tensors."""
        run = xla.function_runner(self._job.device.backend.compiles_layers)
        return run(_square_sums, *tensors)

    def _of_rank(
        self, micro_batch_gradient: MicroBatchGradient, shapes: Sequence[tf.TensorShape], batch: BatchTensors
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """This rank's sums over its micro-batches."""

        def add_micro_batch(k: tf.Tensor, statistics: tf.Tensor, *grad_sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            sums, grads = micro_batch_gradient(k)
            # The first micro-batch's gradient becomes the sum: no zeros are created and none are added.
            added = tf.cond(k > 0, lambda: [total + grad for total, grad in zip(grad_sums, grads)], lambda: grads)
            return (k + 1, statistics + tf.stack(sums), *added)

        if batch.row_splits.shape[0] == 2:  # one micro-batch in every update
            sums, grads = micro_batch_gradient(tf.constant(0))
            return grads, tf.stack(sums)
        no_statistics, no_gradient = tf.zeros([len(Statistics._fields)]), tf.zeros([])
        statistics, *grad_sums = _loop(batch, add_micro_batch, no_statistics, [no_gradient] * len(shapes))
        return [tf.ensure_shape(grad, shape) for grad, shape in zip(grad_sums, shapes)], statistics


class ExactSum(PlainSum):
    """Sums of --rank_invariant: the same bits for any number of ranks. See PlainSum for the methods."""

    def count(self, batch: BatchTensors, stop_request: tf.Tensor) -> Counts:
        """See PlainSum."""
        unit = tf.constant(2.0**fixed_point.STATISTIC_BITS)
        weights = tf.reduce_sum(tf.cast(tf.round(batch.masked_weights * unit), tf.int64))
        terms = [weights, tf.size(batch.next_sentence_labels, tf.int64), tf.cast(stop_request, tf.int64)]
        (totals,) = self._world.allreduce([tf.stack(terms)])
        masked, *others = tf.unstack(tf.cast(totals, tf.float32))
        return Counts(masked / unit, *others)

    def micro_batch(self, batch: BatchTensors, k: tf.Tensor) -> BatchTensors:
        """See PlainSum: as wide as it was packed, whatever the widths of others. XLA's rows all have one width."""
        part = super().micro_batch(batch, k)
        return part if self._job.device.backend.is_compiled else forward.narrow_rows(part)

    def dropout_place(self, batch: BatchTensors, k: tf.Tensor) -> tuple[int, tf.Tensor]:
        """See PlainSum: the micro-batch's number over all ranks, which have equally many of an update."""
        return 0, self._world.rank * (tf.size(batch.row_splits) - 1) + k

    def over_ranks(
        self,
        micro_batch_gradient: MicroBatchGradient,
        shapes: Sequence[tf.TensorShape],
        batch: BatchTensors,
        loss_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """See PlainSum."""
        factors = [2.0**fixed_point.GRADIENT_BITS / loss_scale] * len(shapes)
        factors.append(tf.constant(2.0**fixed_point.STATISTIC_BITS))
        refused, *sums = self._fixed_point_sums(micro_batch_gradient, factors, batch)
        all_shapes = [*shapes, tf.TensorShape([len(Statistics._fields)])]
        *sums, refused = self._world.allreduce([*map(tf.ensure_shape, sums, all_shapes), refused])
        bad = tf.unstack(refused, num=len(sums))
        *values, statistics = [fixed_point.totals_to_float(*one) for one in zip(sums, bad, factors)]
        return values, statistics

    def square_sums(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """See PlainSum: the same bits on any number of threads."""
        return fixed_point.square_sums(tensors)

    def _fixed_point_sums(
        self, micro_batch_gradient: MicroBatchGradient, factors: Sequence[tf.Tensor], batch: BatchTensors
    ) -> list[tf.Tensor]:
        """This rank's: how many terms of each sum were refused [variables + 1], then the sums, int64."""
        num_terms, backend = self._job.fixed_micro_batches, self._job.device.backend

        def add_micro_batch(k: tf.Tensor, refused: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            statistics, gradients = micro_batch_gradient(k)
            terms = [*gradients, tf.stack(statistics)]
            added = [fixed_point.add_as_fixed_point(*one, num_terms, backend) for one in zip(sums, terms, factors)]
            return (k + 1, refused + tf.stack([bad for _, bad in added]), *(total for total, _ in added))

        nothing = tf.zeros([], tf.int64)
        return _loop(batch, add_micro_batch, tf.zeros([len(factors)], tf.int64), [nothing] * len(factors))


def _square_sums(*tensors: tf.Tensor) -> tf.Tensor:
    return optimizer.square_sums(tensors)


def make_gradient_sum(job: Job) -> PlainSum:
    """The sum that the job's flags ask for."""
    return ExactSum(job) if job.config.optim.rank_invariant else PlainSum(job)


def _loop(
    batch: BatchTensors,
    add_micro_batch: Callable[..., tuple[tf.Tensor, ...]],
    first: tf.Tensor,
    others: list[tf.Tensor],
) -> list[tf.Tensor]:
    """What add_micro_batch(k, first, *others) has made of its arguments after all of this rank's micro-batches.

    `others` begin as scalars and take the shapes of what is added to them.
    """
    _, *results = tf.while_loop(
        lambda k, *_: k < tf.size(batch.row_splits) - 1,
        add_micro_batch,
        (tf.constant(0), first, *others),
        shape_invariants=(tf.TensorShape([]), first.shape, *(ANY_SHAPE for _ in others)),
        parallel_iterations=1,
    )
    return results
