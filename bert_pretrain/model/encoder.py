"""Token ids to hidden states: embeddings and the post-LN transformer of Devlin et al. 2018.

Letters: R rows, S tokens a row, T = R * S, H hidden, N heads, D = H / N. A row may hold several examples; a token
sees the tokens of its own example and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model.dropout import Dropout
from bert_pretrain.model.kernels import Kernels
from bert_pretrain.model.layers import Weights, dense, layer_norm


class Rows(NamedTuple):
    """What the encoder reads, each [R, S] int32."""

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    position_ids: tf.Tensor  # from 0 at each example's first token
    example_ids: tf.Tensor  # 1, 2, ... within the row; 0 is padding


class Encoder(NamedTuple):
    """What all layers of one pass have in common."""

    weights: Weights
    config: ModelConfig
    kernels: Kernels
    dropout: Optional[Dropout]  # None drops nothing
    example_ids: tf.Tensor  # [R, S]

    def bits(self, tensor_shape: tf.Tensor, rate: float) -> Optional[tf.Tensor]:
        """Random bits for a mask of this shape, or None where nothing is dropped."""
        return self.dropout.bits(tensor_shape) if self.dropout and rate else None


def encode(
    weights: Weights,
    rows: Rows,
    config: ModelConfig,
    kernels: Kernels,
    dropout: Optional[Dropout] = None,
    compute_dtype: tf.DType = tf.float32,
) -> tf.Tensor:
    """Hidden states of the last layer, [R * S, H] in compute_dtype. Without a dropout nothing is dropped."""
    encoder = Encoder(weights, config, kernels, dropout, rows.example_ids)
    hidden = tf.cast(_embed(encoder, rows), compute_dtype)  # [T, H]
    for layer in range(config.num_hidden_layers):
        hidden = _layer(encoder, f"bert/encoder/layer_{layer}", hidden)
    return hidden


def _embed(encoder: Encoder, rows: Rows) -> tf.Tensor:
    """[T, H] float32."""
    weights, config = encoder.weights, encoder.config
    token_ids, segment_ids, position_ids = (tf.reshape(ids, [-1]) for ids in rows[:3])  # [T] each
    words = tf.gather(weights["bert/embeddings/word_embeddings"], token_ids)  # [T, H]
    # So few kinds of segment that a product is cheaper than gather's gradient, a scatter into two rows.
    kinds = tf.one_hot(segment_ids, config.type_vocab_size)  # [T, types]
    segments = tf.matmul(kinds, weights["bert/embeddings/token_type_embeddings"])  # [T, H]
    positions = tf.gather(weights["bert/embeddings/position_embeddings"], position_ids)  # [T, H]
    hidden = layer_norm(weights, "bert/embeddings/LayerNorm", words + segments + positions, encoder.kernels)
    rate = config.hidden_dropout_prob
    return encoder.kernels.dropout(hidden, encoder.bits(tf.shape(hidden), rate), rate)


def _layer(encoder: Encoder, name: str, hidden: tf.Tensor) -> tf.Tensor:
    """hidden [T, H] -> [T, H]: attention and feed-forward, each with dropout, residual and layer norm after it."""
    weights = encoder.weights
    context = _attend(encoder, f"{name}/attention/self", hidden)
    projected = dense(weights, f"{name}/attention/output/dense", context)
    hidden = _add_and_norm(encoder, f"{name}/attention/output/LayerNorm", projected, hidden)
    wide = encoder.kernels.gelu(dense(weights, f"{name}/intermediate/dense", hidden))  # [T, I]
    narrow = dense(weights, f"{name}/output/dense", wide)
    return _add_and_norm(encoder, f"{name}/output/LayerNorm", narrow, hidden)


def _attend(encoder: Encoder, name: str, hidden: tf.Tensor) -> tf.Tensor:
    """Multi-head attention within each row: hidden [T, H] -> [T, H]."""
    config = encoder.config
    num_rows, width = tf.unstack(tf.shape(encoder.example_ids))
    heads, head_size = config.num_attention_heads, config.head_size

    def split_heads(projected: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.reshape(projected, [num_rows, width, heads, head_size]), [0, 2, 1, 3])

    query, key, value = (
        split_heads(dense(encoder.weights, f"{name}/{part}", hidden)) for part in ("query", "key", "value")
    )  # [R, N, S, D] each
    rate = config.attention_probs_dropout_prob
    bits = encoder.bits(tf.stack([num_rows, heads, width, width]), rate)
    context = encoder.kernels.attention(query, key, value, encoder.example_ids, bits, rate)
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, config.hidden_size])


def _add_and_norm(encoder: Encoder, name: str, inputs: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
    weights, rate = encoder.weights, encoder.config.hidden_dropout_prob
    bits = encoder.bits(tf.shape(inputs), rate)
    return encoder.kernels.add_and_norm(inputs, residual, weights[f"{name}/gamma"], weights[f"{name}/beta"], bits, rate)
