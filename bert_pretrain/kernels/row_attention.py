"""Attention on padded rows: scores of all pairs of slots of a row, where pairs of different examples are masked.

GPUs and XLA are fastest with a few large matrix products of fixed shape, whatever the rows hold.
"""

from __future__ import annotations

import math
from typing import Optional

import tensorflow as tf

from bert_pretrain.kernels.dropout import drop_units
from bert_pretrain.kernels.unpadding import Tokens
from bert_pretrain.kernels.xla import Run
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient, static_size

_MASKED_SCORE = -10000.0  # as attention_layer in google-research/bert modeling.py


class RowAttention:
    """See Kernels.attention. Letters: R rows, S slots per row, T tokens, H hidden, N heads, D = H / N."""

    def __init__(self, run: Run, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float) -> None:
        """run: from xla.function_runner, for the elementwise parts."""
        self._run, self._tokens, self._num_heads, self._rate = run, tokens, num_heads, rate
        self._num_rows, self._width = tf.unstack(tf.shape(example_ids))
        self._mask = attention_mask(example_ids)  # [R, 1, S, S]

    def __call__(self, qkv: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        """[T, 3H] -> [T, H]."""
        hidden_size = static_size(qkv, -1) // 3
        shape = [self._num_rows, self._width, 3, self._num_heads, hidden_size // self._num_heads]
        split = tf.reshape(self._tokens.pad(qkv), shape)  # [R, S, 3, N, D]
        query, key, value = tf.unstack(_transpose(split, (2, 0, 3, 1, 4)))  # [R, N, S, D] each
        context = self.attend(query, key, value, bits)
        joined = tf.reshape(_transpose(context, (0, 2, 1, 3)), [-1, hidden_size])  # [R * S, H]
        return self._tokens.unpad(joined)

    def attend(self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        """query, key, value [R, N, S, D] -> context [R, N, S, D].

        The backward pass keeps the probabilities and drops them again. The softmax gradient needs the sum over a row
        of the probabilities times their gradients; it equals the sum over D of the context times its gradient (Dao
        et al. 2022, arXiv:2205.14135, appendix B.2).
        """
        rate, scale = self._rate, 1.0 / math.sqrt(static_size(query, -1))

        @custom_gradient
        def kernel(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> TensorAndGradient:
            scores = tf.cast(tf.matmul(query * scale, key, transpose_b=True), tf.float32)  # [R, N, S, S]
            # Not compiled: TensorFlow adds in place, XLA allocates; and XLA's softmax is slower than oneDNN's.
            # Kept in the dtype of the products, for the backward pass reads them twice.
            probabilities = tf.cast(tf.nn.softmax(scores + self._mask), value.dtype)
            context = tf.matmul(self._drop(probabilities, bits), value)  # [R, N, S, D]

            def gradient(grad_context: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                grad_value = tf.matmul(self._drop(probabilities, bits), grad_context, transpose_a=True)
                grad_dropped = tf.matmul(grad_context, value, transpose_b=True)  # [R, N, S, S]
                row_sums = self._run(_row_dot, grad_context, context)  # [R, N, S, 1]
                grad_scores = self._run(
                    _softmax_gradient, probabilities, grad_dropped, row_sums, bits, rate=rate, scale=scale
                )
                return tf.matmul(grad_scores, key), tf.matmul(grad_scores, query, transpose_a=True), grad_value

            return context, gradient

        return kernel(query, key, value)

    def _drop(self, probabilities: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        return probabilities if bits is None else self._run(drop_units, probabilities, bits, rate=self._rate)


def attention_mask(example_ids: tf.Tensor) -> tf.Tensor:
    """What is added to the scores: example_ids [R, S] -> [R, 1, S, S] float32; a token sees its own example only."""
    ids = tf.cast(example_ids, tf.float32)  # GPUs compare int32 on the host
    visible = tf.equal(ids[:, None, :, None], ids[:, None, None, :])  # [R, 1, S, S]
    return tf.where(visible, 0.0, _MASKED_SCORE)


def _transpose(values: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """tf.transpose, whose own gradient takes the axes as a tensor: a GPU would send them to the host for each layer."""
    inverse = [axes.index(axis) for axis in range(len(axes))]

    @custom_gradient
    def kernel(values: tf.Tensor) -> TensorAndGradient:
        return tf.transpose(values, axes), lambda grad_outputs: tf.transpose(grad_outputs, inverse)

    return kernel(values)


def _row_dot(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Scalar products along the last axis, which stays with size 1; float32."""
    return tf.reduce_sum(tf.cast(one, tf.float32) * tf.cast(other, tf.float32), axis=-1, keepdims=True)


def _softmax_gradient(
    probabilities: tf.Tensor,
    grad_dropped: tf.Tensor,
    row_sums: tf.Tensor,
    bits: Optional[tf.Tensor],
    *,
    rate: float,
    scale: float,
) -> tf.Tensor:
    """Gradient of the dropped probabilities [R, N, S, S] -> gradient of the scores before scaling."""
    grad_probabilities = grad_dropped if bits is None else drop_units(grad_dropped, bits, rate)
    slopes = tf.cast(grad_probabilities, tf.float32) - row_sums
    grad_scores = tf.cast(probabilities, tf.float32) * slopes * scale
    return tf.cast(grad_scores, grad_dropped.dtype)
