"""The two heads of pretraining: which token was masked, and does the second segment follow the first.

Letters: M masked tokens, E examples, H hidden, V vocabulary.
"""

from __future__ import annotations

import tensorflow as tf

from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.model.encoder import Sequence
from bert_pretrain.model.layers import Weights, dense, layer_norm

# Little work, and none for XLA: the number of masked tokens differs from update to update, and it would start anew.
_KERNELS = GraphKernels(compiled=False)


def masked_lm_logits(weights: Weights, sequence: Sequence, masked_positions: tf.Tensor) -> tf.Tensor:
    """masked_positions [M] int32, slots -> [M, V] float32; the decoder is the word embedding."""
    hidden = sequence.at(masked_positions)  # [M, H]
    hidden = _KERNELS.gelu(dense(weights, "cls/predictions/transform/dense", hidden))
    hidden = layer_norm(weights, "cls/predictions/transform/LayerNorm", hidden, _KERNELS)
    table = tf.cast(weights["bert/embeddings/word_embeddings"], hidden.dtype)
    logits = tf.matmul(hidden, table, transpose_b=True)  # [M, V]
    return tf.nn.bias_add(tf.cast(logits, tf.float32), weights["cls/predictions/output_bias"])


def next_sentence_logits(weights: Weights, sequence: Sequence, cls_positions: tf.Tensor) -> tf.Tensor:
    """cls_positions [E] int32, slots -> [E, 2] float32; column 0 is "follows", 1 is "random"."""
    first = sequence.at(cls_positions)  # [E, H]
    pooled = tf.cast(tf.tanh(dense(weights, "bert/pooler/dense", first)), tf.float32)
    logits = tf.matmul(pooled, weights["cls/seq_relationship/output_weights"], transpose_b=True)  # [E, 2]
    return tf.nn.bias_add(logits, weights["cls/seq_relationship/output_bias"])
