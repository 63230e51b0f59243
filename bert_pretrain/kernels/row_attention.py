"""Attention on rows: all pairs of slots of a row, with those of different examples masked.

What cards want, and XLA: few and large products, whatever the rows hold.
"""

from __future__ import annotations

import math
from typing import Callable, Optional

import tensorflow as tf

from bert_pretrain.kernels.dropout import drop
from bert_pretrain.kernels.unpadding import Tokens

_MASKED_SCORE = -10000.0  # added to the scores of what a token must not see (facts 3.5)


class RowAttention:
    """See Kernels.attention. Letters: R rows, S slots a row, N heads, D = H / N."""

    def __init__(
        self, run: Callable[..., tf.Tensor], example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> None:
        """run(function, *tensors, **numbers) runs what may be compiled."""
        self._run, self._tokens, self._num_heads, self._rate = run, tokens, num_heads, rate
        self._num_rows, self._width = tf.unstack(tf.shape(example_ids))
        self._mask = attention_mask(example_ids)  # [R, 1, S, S]

    def __call__(self, projected: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        """[T, 3H] -> [T, H]."""
        hidden_size = projected.shape[-1] // 3
        parts = [self._num_rows, self._width, 3, self._num_heads, hidden_size // self._num_heads]
        split = tf.reshape(self._tokens.to_rows(projected), parts)
        query, key, value = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))  # [R, N, S, D] each
        context = self.within_rows(query, key, value, bits)
        joined = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, hidden_size])  # [R * S, H]
        return self._tokens.from_rows(joined)

    def within_rows(self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        """query, key, value [R, N, S, D] -> [R, N, S, D].

        The gradient keeps the probabilities and makes the dropped ones again. It needs their product with their
        gradient summed over a row, which equals the context's product with its own gradient (Dao et al. 2022, 3.1).
        """
        mask, rate, scale = self._mask, self._rate, 1.0 / math.sqrt(query.shape[-1])

        @tf.custom_gradient
        def kernel(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor):
            scores = tf.cast(tf.matmul(query * scale, key, transpose_b=True), tf.float32)  # [R, N, S, S]
            # Not compiled: TensorFlow adds in place, XLA into new memory; and XLA's softmax is slower than oneDNN's.
            probabilities = tf.nn.softmax(scores + mask)
            context = tf.matmul(self._dropped(probabilities, bits, value.dtype), value)  # [R, N, S, D]

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                dropped = self._dropped(probabilities, bits, value.dtype)
                to_value = tf.matmul(dropped, upstream, transpose_a=True)
                to_dropped = tf.matmul(upstream, value, transpose_b=True)  # [R, N, S, S]
                row_sums = self._run(_row_products, upstream, context)  # [R, N, S, 1]
                to_scores = self._run(
                    _softmax_gradient, probabilities, to_dropped, row_sums, bits, rate=rate, scale=scale
                )
                return tf.matmul(to_scores, key), tf.matmul(to_scores, query, transpose_a=True), to_value

            return context, gradient

        return kernel(query, key, value)

    def _dropped(self, probabilities: tf.Tensor, bits: Optional[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
        kept = probabilities if bits is None else self._run(drop, probabilities, bits, rate=self._rate)
        return tf.cast(kept, dtype)


def attention_mask(example_ids: tf.Tensor) -> tf.Tensor:
    """What is added to the scores: example_ids [R, S] -> [R, 1, S, S] float32; a token sees its own example only."""
    visible = tf.equal(example_ids[:, None, :, None], example_ids[:, None, None, :])  # [R, 1, S, S]
    return tf.where(visible, 0.0, _MASKED_SCORE)


def _row_products(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(one, tf.float32) * tf.cast(other, tf.float32), axis=-1, keepdims=True)


def _softmax_gradient(probabilities, to_dropped, row_sums, bits, *, rate: float, scale: float) -> tf.Tensor:
    """From the gradient to the dropped probabilities [R, N, S, S] to that of the unscaled scores."""
    to_probabilities = to_dropped if bits is None else drop(to_dropped, bits, rate)
    gradient = probabilities * (tf.cast(to_probabilities, tf.float32) - row_sums) * scale
    return tf.cast(gradient, to_dropped.dtype)
