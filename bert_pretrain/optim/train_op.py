"""The order of gradient work, from micro-batches to one update. Nothing else may touch a gradient.

1. Micro-batches in one loop: forward, backward, gradients added up. A session.run is one whole update, so
   global_step counts updates and no hook has to know about accumulation.
2. One sum over ranks, of gradients and statistics together.
3. The square norm of every variable's gradient; their sum says whether the update is finite.
4. Unscaling and clipping to the global norm, as one factor that the optimizer multiplies in.
5. LAMB or AdamW, then the step is counted. A non-finite update moves nothing but the loss scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple, Protocol

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.adamw import Adamw
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.loss_scale import LossScale

Weights = Mapping[str, tf.Tensor]
MicroBatch = Callable[[tf.Tensor, Weights], "tuple[tf.Tensor, tf.Tensor]"]
SumOverRanks = Callable[["list[tf.Tensor]"], "list[tf.Tensor]"]


class Optimizer(Protocol):
    """What Lamb and Adamw have in common."""

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """One update of every variable from gradient * gradient_scale."""


class Gradient(NamedTuple):
    """An update's gradient, summed over micro-batches and ranks and still multiplied by the loss scale."""

    values: dict[str, tf.Tensor]
    statistics: tf.Tensor  # [X] float32, what the micro-batches counted
    square_norms: tf.Tensor  # [variables] float32, of the unscaled gradient, in the weights' order
    norm: tf.Tensor  # float32 scalar, of the unscaled gradient
    finite: tf.Tensor  # bool scalar


def optimizer(config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend) -> Optimizer:
    """The optimizer that --optimizer_type names, with its slots in the default graph."""
    return {"lamb": Lamb, "adam": Adamw}[config.optimizer_type](config, weights, backend)


def gradient(
    micro_batch: MicroBatch,
    num_micro_batches: tf.Tensor,
    num_statistics: int,
    weights: Mapping[str, tf.Variable],
    loss_scale: tf.Tensor,
    sum_over_ranks: SumOverRanks,
) -> Gradient:
    """Steps 1 to 3.

    micro_batch(k, weights) gives the loss, already divided by the counts of the whole update, and [num_statistics]
    float32 numbers to be summed.
    """
    statistics, sums = _accumulate(micro_batch, num_micro_batches, num_statistics, weights, loss_scale)
    *sums, statistics = sum_over_ranks([*sums, statistics])
    square_norms = 2.0 * tf.stack([tf.nn.l2_loss(value) for value in sums]) / tf.square(loss_scale)
    norm = tf.sqrt(tf.reduce_sum(square_norms))
    return Gradient(dict(zip(weights, sums)), statistics, square_norms, norm, tf.math.is_finite(norm))


def apply(
    update: Gradient,
    rule: Optimizer,
    learning_rate: tf.Tensor,
    loss_scale: LossScale,
    clip_norm: float,
    step: tf.Variable,
) -> tf.Operation:
    """Steps 4 and 5; step is advanced by one when the gradient is finite."""
    clip = tf.minimum(1.0, clip_norm / update.norm) if clip_norm else tf.constant(1.0)

    def move() -> tf.Tensor:
        with tf.control_dependencies([rule.apply(update.values, learning_rate, clip / loss_scale.value)]):
            return _done(loss_scale.after_good_update(), step.assign_add(1))

    def stay() -> tf.Tensor:
        return _done(loss_scale.after_bad_update())

    return tf.cond(update.finite, move, stay).op


def _done(*operations: tf.Operation) -> tf.Tensor:
    with tf.control_dependencies([tf.group(*operations)]):
        return tf.constant(True)


def _accumulate(
    micro_batch: MicroBatch,
    num_micro_batches: tf.Tensor,
    num_statistics: int,
    weights: Mapping[str, tf.Variable],
    loss_scale: tf.Tensor,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Statistics [num_statistics] and one float32 gradient per variable, summed over the micro-batches."""

    def body(k: tf.Tensor, statistics: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # Differentiation needs tensors of this loop's own graph, not those that it captures.
        local = {name: tf.identity(weight) for name, weight in weights.items()}
        loss, counted = micro_batch(k, local)
        found = tf.gradients(loss * loss_scale, list(local.values()))
        for name, value in zip(local, found):
            assert value is not None, f"{name} has no part in the loss"
        found = [_dense(value) for value in found]
        # The first micro-batch's gradient is the sum so far: no zeros are made and none are added.
        added = tf.cond(k > 0, lambda: [total + value for total, value in zip(sums, found)], lambda: found)
        return (k + 1, statistics + counted, *added)

    nothing, any_shape = tf.zeros([]), tf.TensorShape(None)
    _, statistics, *sums = tf.while_loop(
        lambda k, *_: k < num_micro_batches,
        body,
        (tf.constant(0), tf.zeros([num_statistics]), *(nothing for _ in weights)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([num_statistics]), *(any_shape for _ in weights)),
        parallel_iterations=1,
    )
    return statistics, [tf.ensure_shape(value, weight.shape) for value, weight in zip(sums, weights.values())]


def _dense(value: tf.Tensor) -> tf.Tensor:
    return tf.convert_to_tensor(value)  # a gather's gradient is IndexedSlices
