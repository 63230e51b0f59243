"""Rows without their padding: linear layers work on tokens [T, X], attention on rows [R * S, X].

Letters: R rows, S slots a row, T tokens. A slot is a place in a row, counted over all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# T is a multiple of 64, or of 64 for each 2048 tokens: shapes repeat, so that XLA compiles few of them, and matrix
# kernels have no ragged edge.
_MULTIPLE, _TOKENS_PER_MULTIPLE = 64, 2048


class Tokens(NamedTuple):
    """The slots that are computed: all that hold a token, and so much padding as makes their number round."""

    slots: tf.Tensor  # [T] int32, ascending but for the padding, which comes last
    numbers: tf.Tensor  # [R * S] int32: which of the T stands in a slot; the last, which is padding, where none does

    def to_rows(self, values: tf.Tensor) -> tf.Tensor:
        """[T, X] -> [R * S, X]. No gradient may come from slots that hold no token; it is not looked at."""
        return _move(values, self.numbers, self.slots)

    def from_rows(self, values: tf.Tensor) -> tf.Tensor:
        """[R * S, X] -> [T, X]. No gradient may come for padding; what it is takes the place of all padding's."""
        return _move(values, self.slots, self.numbers)


def computed(example_ids: tf.Tensor) -> Tokens:
    """The tokens of rows with these example_ids [R, S], 0 being padding."""
    is_token = tf.reshape(example_ids, [-1]) > 0  # [R * S]
    tokens, padding = (tf.cast(tf.where(chosen)[:, 0], tf.int32) for chosen in (is_token, tf.logical_not(is_token)))
    num_tokens = tf.size(tokens)
    multiple = _MULTIPLE * tf.maximum(1, num_tokens // _TOKENS_PER_MULTIPLE)
    # One at the least is padding, unless there is none: the slots that are left out need a stand-in.
    slots = tf.concat([tokens, padding], axis=0)[: (num_tokens // multiple + 1) * multiple]
    numbers = tf.range(tf.size(slots))
    last_everywhere = tf.fill(tf.shape(is_token), numbers[-1])
    return Tokens(slots, tf.tensor_scatter_nd_update(last_everywhere, slots[:, None], numbers))


def _move(values: tf.Tensor, there: tf.Tensor, back: tf.Tensor) -> tf.Tensor:
    """Lines of values; its gradient moves lines too, where TensorFlow's would add up into zeros."""

    @tf.custom_gradient
    def kernel(values: tf.Tensor):
        return tf.gather(values, there), lambda upstream: tf.gather(upstream, back)

    return kernel(values)
