"""Token ids to hidden states: embeddings and the post-LN transformer of Devlin et al. 2018.

Letters: R rows, S slots a row, T tokens that are computed, H hidden, N heads. A row may hold several examples; a token
sees the tokens of its own example and nothing else. Padding is skipped (tokens.py).
"""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import Kernels
from bert_pretrain.kernels.unpadding import Tokens, computed
from bert_pretrain.model.layers import Weights, dense, fused_dense, layer_norm
from bert_pretrain.model.recompute import recomputed


class Rows(NamedTuple):
    """What the encoder reads, each [R, S] int32."""

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    position_ids: tf.Tensor  # from 0 at each example's first token
    example_ids: tf.Tensor  # 1, 2, ... within the row; 0 is padding


class Encoder(NamedTuple):
    """What all layers of one pass have in common."""

    config: ModelConfig
    kernels: Kernels
    tokens: Tokens
    attend: Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]  # within each example: [T, 3H] -> [T, H]


class Sequence(NamedTuple):
    """The encoder's result."""

    hidden: tf.Tensor  # [T, H]
    tokens: Tokens

    def at(self, slots: tf.Tensor) -> tf.Tensor:
        """[X, H], the hidden states in these slots [X], none of which is padding."""
        return tf.gather(self.hidden, tf.gather(self.tokens.numbers, slots))


class LayerBits(NamedTuple):
    """Random bits for a layer's masks; None where nothing is dropped."""

    attention: Optional[tf.Tensor]
    projected: Optional[tf.Tensor]
    narrow: Optional[tf.Tensor]


def encode(
    weights: Weights,
    rows: Rows,
    config: ModelConfig,
    kernels: Kernels,
    dropout: Optional[Dropout] = None,
    compute_dtype: tf.DType = tf.float32,
    recompute: bool = False,
) -> Sequence:
    """Hidden states of the last layer, in compute_dtype. Without a dropout nothing is dropped.

    With recompute only each layer's input is kept, and the layer is run again in the backward pass.
    """
    tokens = computed(rows.example_ids)
    attend = kernels.attention(
        rows.example_ids, tokens, config.num_attention_heads, config.attention_probs_dropout_prob
    )
    encoder = Encoder(config, kernels, tokens, attend)
    hidden = tf.cast(_embed(encoder, weights, rows, dropout), compute_dtype)  # [T, H]
    for number in range(config.num_hidden_layers):
        prefix = f"bert/encoder/layer_{number}/"
        own = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
        layer = functools.partial(_layer, encoder, prefix, bits=_layer_bits(dropout, config, rows, tf.shape(hidden)))
        hidden = recomputed(layer, own, hidden) if recompute else layer(own, hidden)
    return Sequence(hidden, tokens)


def _layer_bits(dropout: Optional[Dropout], config: ModelConfig, rows: Rows, hidden_shape: tf.Tensor) -> LayerBits:
    num_rows, width = tf.unstack(tf.shape(rows.example_ids))
    probabilities = tf.stack([num_rows, config.num_attention_heads, width, width])
    return LayerBits(
        _bits(dropout, probabilities, config.attention_probs_dropout_prob),
        _bits(dropout, hidden_shape, config.hidden_dropout_prob),
        _bits(dropout, hidden_shape, config.hidden_dropout_prob),
    )


def _bits(dropout: Optional[Dropout], shape: tf.Tensor, rate: float) -> Optional[tf.Tensor]:
    return dropout.bits(shape) if dropout and rate else None


def _embed(encoder: Encoder, weights: Weights, rows: Rows, dropout: Optional[Dropout]) -> tf.Tensor:
    """[T, H] float32."""
    config = encoder.config
    token_ids, segment_ids, position_ids = (
        tf.gather(tf.reshape(ids, [-1]), encoder.tokens.slots) for ids in rows[:3]
    )  # [T] each
    words = tf.gather(weights["bert/embeddings/word_embeddings"], token_ids)  # [T, H]
    # So few kinds of segment that a product is cheaper than gather's gradient, a scatter into two rows.
    kinds = tf.one_hot(segment_ids, config.type_vocab_size)  # [T, types]
    segments = tf.matmul(kinds, weights["bert/embeddings/token_type_embeddings"])  # [T, H]
    positions = tf.gather(weights["bert/embeddings/position_embeddings"], position_ids)  # [T, H]
    hidden = layer_norm(weights, "bert/embeddings/LayerNorm", words + segments + positions, encoder.kernels)
    rate = config.hidden_dropout_prob
    return encoder.kernels.dropout(hidden, _bits(dropout, tf.shape(hidden), rate), rate)


def _layer(encoder: Encoder, prefix: str, weights: Weights, hidden: tf.Tensor, bits: LayerBits) -> tf.Tensor:
    """hidden [T, H] -> [T, H]: attention and feed-forward, each with dropout, residual and layer norm after it."""
    context = _attend(encoder, f"{prefix}attention/self", weights, hidden, bits.attention)
    projected = dense(weights, f"{prefix}attention/output/dense", context)
    hidden = _add_and_norm(encoder, f"{prefix}attention/output/LayerNorm", weights, projected, hidden, bits.projected)
    wide = encoder.kernels.gelu(dense(weights, f"{prefix}intermediate/dense", hidden))  # [T, I]
    narrow = dense(weights, f"{prefix}output/dense", wide)
    return _add_and_norm(encoder, f"{prefix}output/LayerNorm", weights, narrow, hidden, bits.narrow)


def _attend(encoder: Encoder, name: str, weights: Weights, hidden: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
    """Multi-head attention within each example: hidden [T, H] -> [T, H]."""
    projected = fused_dense(weights, [f"{name}/{part}" for part in ("query", "key", "value")], hidden)  # [T, 3H]
    return encoder.attend(projected, bits)


def _add_and_norm(
    encoder: Encoder,
    name: str,
    weights: Weights,
    inputs: tf.Tensor,
    residual: tf.Tensor,
    bits: Optional[tf.Tensor],
) -> tf.Tensor:
    gamma, beta = weights[f"{name}/gamma"], weights[f"{name}/beta"]
    return encoder.kernels.add_and_norm(inputs, residual, gamma, beta, bits, encoder.config.hidden_dropout_prob)
