"""Removing and restoring padding: linear layers work on tokens [T, X], attention on rows [R * S, X].

Letters: R rows, S slots per row, T tokens, X any width. A slot is a place in a row, counted over all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient

# T is a multiple of 64, or of 64 for each 2048 tokens, so that the matrix products have no remainder.
_MULTIPLE, _TOKENS_PER_MULTIPLE = 64, 2048


class Tokens(NamedTuple):
    """The slots that the layers compute: all that hold a token, and enough padding to round their number up."""

    slots: tf.Tensor  # [T] int32: the slot of each token, ascending; padding comes last
    indices: tf.Tensor  # [R * S] int32: the index in T of each slot; slots left out have that of the last, a padding

    def pad(self, values: tf.Tensor) -> tf.Tensor:
        """[T, X] -> [R * S, X]. The gradient that arrives at slots without a token must be zero; it is not read."""
        return _gather(values, self.indices, self.slots)

    def unpad(self, values: tf.Tensor) -> tf.Tensor:
        """[R * S, X] -> [T, X]. The gradient that arrives at padding must be zero.

        All slots that were left out receive that of the last padding.
        """
        return _gather(values, self.slots, self.indices)


class EverySlot(Tokens):
    """All slots of the rows, padding included, in place: for programs that are compiled for each number of tokens."""

    def pad(self, values: tf.Tensor) -> tf.Tensor:
        """[T, X], where T = R * S, as it is."""
        return values

    def unpad(self, values: tf.Tensor) -> tf.Tensor:
        """[R * S, X], where T = R * S, as it is."""
        return values


def every_slot(example_ids: tf.Tensor) -> Tokens:
    """All slots of rows with these example_ids [R, S] int32."""
    numbers = tf.range(tf.size(example_ids))
    return EverySlot(numbers, numbers)


def find_tokens(example_ids: tf.Tensor) -> Tokens:
    """The tokens of rows with these example_ids [R, S] int32, where 0 is padding."""
    is_token = tf.reshape(example_ids, [-1]) > 0  # [R * S]
    tokens, padding = (tf.cast(tf.where(chosen)[:, 0], tf.int32) for chosen in (is_token, tf.logical_not(is_token)))
    num_tokens = tf.size(tokens)
    multiple = _MULTIPLE * tf.maximum(1, num_tokens // _TOKENS_PER_MULTIPLE)
    # At least one padding is kept, if there is any: it represents the slots that are left out.
    slots = tf.concat([tokens, padding], axis=0)[: (num_tokens // multiple + 1) * multiple]
    indices = tf.range(tf.size(slots))
    last_everywhere = tf.fill(tf.shape(is_token), indices[-1])
    return Tokens(slots, tf.tensor_scatter_nd_update(last_everywhere, slots[:, None], indices))


def _gather(values: tf.Tensor, indices: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """values at indices. Its gradient is a gather by the inverse; TensorFlow's would be a slower scatter-add."""

    @custom_gradient
    def kernel(values: tf.Tensor) -> TensorAndGradient:
        return tf.gather(values, indices), lambda grad_outputs: tf.gather(grad_outputs, inverse)

    return kernel(values)


def take_rows(values: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Rows of values [T, X] by their numbers [Y] -> [Y, X].

    Its gradient is a tensor. That of tf.gather is IndexedSlices, which the gradients of compiled kernels cannot take.
    """

    @custom_gradient
    def kernel(values: tf.Tensor) -> TensorAndGradient:
        def gradient(grad_outputs: tf.Tensor) -> tf.Tensor:
            grad_values = tf.math.unsorted_segment_sum(grad_outputs, numbers, tf.shape(values)[0])
            grad_values.set_shape(values.shape)
            return grad_values

        return tf.gather(values, numbers), gradient

    return kernel(values)
