"""Token ids to hidden states: embeddings and the post-LN transformer of Devlin et al. 2018.

Letters: R rows, S tokens a row, T = R * S, H hidden, N heads, D = H / N. A row may hold several examples; a token
sees the tokens of its own example and nothing else.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model.dropout import Dropout
from bert_pretrain.model.layers import Weights, dense, gelu, layer_norm

_MASKED_SCORE = -10000.0  # added to the scores of what a token must not see (facts 3.5)


class Rows(NamedTuple):
    """What the encoder reads, each [R, S] int32."""

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    position_ids: tf.Tensor  # from 0 at each example's first token
    example_ids: tf.Tensor  # 1, 2, ... within the row; 0 is padding


def encode(
    weights: Weights,
    rows: Rows,
    config: ModelConfig,
    dropout: Optional[Dropout] = None,
    compute_dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Hidden states of the last layer, [R * S, H] in compute_dtype. Without a dropout nothing is dropped."""
    num_rows, width = tf.unstack(tf.shape(rows.token_ids))
    hidden = _embed(weights, rows, config, dropout, compute_dtype)  # [T, H]
    visible = tf.equal(rows.example_ids[:, :, None], rows.example_ids[:, None, :])  # [R, S, S]
    bias = tf.where(visible, 0.0, _MASKED_SCORE)[:, None, :, :]  # [R, 1, S, S]
    for layer in range(config.num_hidden_layers):
        hidden = _layer(weights, f"bert/encoder/layer_{layer}", hidden, bias, (num_rows, width), config, dropout)
    return hidden


def _embed(
    weights: Weights, rows: Rows, config: ModelConfig, dropout: Optional[Dropout], compute_dtype: tf.DType
) -> tf.Tensor:
    token_ids, segment_ids, position_ids = (tf.reshape(ids, [-1]) for ids in rows[:3])  # [T] each
    words = tf.gather(weights["bert/embeddings/word_embeddings"], token_ids)  # [T, H]
    # So few kinds of segment that a product is cheaper than gather's gradient, a scatter into two rows.
    kinds = tf.one_hot(segment_ids, config.type_vocab_size)  # [T, types]
    segments = tf.matmul(kinds, weights["bert/embeddings/token_type_embeddings"])  # [T, H]
    positions = tf.gather(weights["bert/embeddings/position_embeddings"], position_ids)  # [T, H]
    hidden = layer_norm(weights, "bert/embeddings/LayerNorm", words + segments + positions)
    return tf.cast(_drop(dropout, hidden, config.hidden_dropout_prob), compute_dtype)


def _layer(
    weights: Weights,
    name: str,
    hidden: tf.Tensor,
    bias: tf.Tensor,
    row_shape: tuple[tf.Tensor, tf.Tensor],
    config: ModelConfig,
    dropout: Optional[Dropout],
) -> tf.Tensor:
    """hidden [T, H] -> [T, H]: attention and feed-forward, each with dropout, residual and layer norm after it."""
    rate = config.hidden_dropout_prob
    context = _attend(weights, f"{name}/attention/self", hidden, bias, row_shape, config, dropout)
    context = _drop(dropout, dense(weights, f"{name}/attention/output/dense", context), rate)
    hidden = layer_norm(weights, f"{name}/attention/output/LayerNorm", hidden + context)
    wide = gelu(dense(weights, f"{name}/intermediate/dense", hidden))  # [T, I]
    narrow = _drop(dropout, dense(weights, f"{name}/output/dense", wide), rate)
    return layer_norm(weights, f"{name}/output/LayerNorm", hidden + narrow)


def _attend(
    weights: Weights,
    name: str,
    hidden: tf.Tensor,
    bias: tf.Tensor,
    row_shape: tuple[tf.Tensor, tf.Tensor],
    config: ModelConfig,
    dropout: Optional[Dropout],
) -> tf.Tensor:
    """Multi-head attention within each row: hidden [T, H], bias [R, 1, S, S] -> [T, H]."""
    num_rows, width = row_shape
    heads, head_size = config.num_attention_heads, config.head_size

    def split_heads(projected: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.reshape(projected, [num_rows, width, heads, head_size]), [0, 2, 1, 3])

    query, key, value = (split_heads(dense(weights, f"{name}/{part}", hidden)) for part in ("query", "key", "value"))
    scores = tf.matmul(query, key, transpose_b=True) * (1.0 / math.sqrt(head_size))  # [R, N, S, S]
    probabilities = tf.nn.softmax(tf.cast(scores, tf.float32) + bias)
    probabilities = tf.cast(_drop(dropout, probabilities, config.attention_probs_dropout_prob), hidden.dtype)
    context = tf.matmul(probabilities, value)  # [R, N, S, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, config.hidden_size])


def _drop(dropout: Optional[Dropout], inputs: tf.Tensor, rate: float) -> tf.Tensor:
    return inputs if dropout is None else dropout(inputs, rate)
