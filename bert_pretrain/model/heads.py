"""The two pretraining heads, masked language model and next-sentence prediction (Devlin et al. 2018), and their losses.

Losses are sums and counts instead of means: only sums can be added over micro-batches and ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.model.encoder import Sequence
from bert_pretrain.model.layers import Weights, dense, layer_norm
from bert_pretrain.tensorflow_compat.typed import static_size

_VOCABULARY_MULTIPLE = 64  # what GPUs multiply fast in 16 bits; BERT's 30,522 is not even a multiple of 4
# Not compiled: M differs from update to update, and XLA would compile a new program for each.
_KERNELS = GraphKernels()


def masked_lm_logits(weights: Weights, sequence: Sequence, masked_positions: tf.Tensor) -> tf.Tensor:
    """masked_positions [M] int32, slots -> [M, V] float32. The decoder's weights are the word embeddings."""
    hidden = sequence.gather(masked_positions)  # [M, H]
    hidden = _KERNELS.gelu(dense(weights, "cls/predictions/transform/dense", hidden))
    hidden = layer_norm(weights, "cls/predictions/transform/LayerNorm", hidden, _KERNELS)
    embeddings = tf.cast(weights["bert/embeddings/word_embeddings"], hidden.dtype)
    logits = _product_with_vocabulary(hidden, embeddings)
    return tf.nn.bias_add(tf.cast(logits, tf.float32), weights["cls/predictions/output_bias"])


def _product_with_vocabulary(hidden: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """hidden [M, H], embeddings [V, H] -> [M, V]."""
    size = static_size(embeddings, 0)
    if hidden.dtype == tf.float32 or not size % _VOCABULARY_MULTIPLE:
        return tf.matmul(hidden, embeddings, transpose_b=True)
    padded = tf.pad(embeddings, [[0, -size % _VOCABULARY_MULTIPLE], [0, 0]])
    return tf.slice(tf.matmul(hidden, padded, transpose_b=True), [0, 0], [-1, size])


def pooled_output(weights: Weights, sequence: Sequence, cls_positions: tf.Tensor) -> tf.Tensor:
    """cls_positions [E] int32, slots -> [E, H] float32: what stands for a whole example."""
    hidden = sequence.gather(cls_positions)  # [E, H]
    return tf.cast(tf.tanh(dense(weights, "bert/pooler/dense", hidden)), tf.float32)


def next_sentence_logits(weights: Weights, sequence: Sequence, cls_positions: tf.Tensor) -> tf.Tensor:
    """cls_positions [E] int32, slots -> [E, 2] float32. Class 0: the second segment follows; 1: it is random."""
    pooled = pooled_output(weights, sequence, cls_positions)
    logits = tf.matmul(pooled, weights["cls/seq_relationship/output_weights"], transpose_b=True)  # [E, 2]
    return tf.nn.bias_add(logits, weights["cls/seq_relationship/output_bias"])


def is_of_pairs(name: str) -> bool:
    """True for a variable that only the prediction of next sentences trains."""
    return name.startswith(("bert/pooler/", "cls/seq_relationship/"))


class LossSums(NamedTuple):
    """Sums over tokens or examples, each a float32 scalar."""

    loss: tf.Tensor  # weighted cross entropy, nats
    correct: tf.Tensor  # sum of the weights where the highest logit is the label
    count: tf.Tensor  # sum of all weights


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> LossSums:
    """logits [X, C] float32, labels [X] int32, weights [X] float32 -> sums over X."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)  # [X]
    return LossSums(
        loss=tf.reduce_sum(weights * losses),
        correct=tf.reduce_sum(hits(logits, labels, weights)),
        count=tf.reduce_sum(weights),
    )


def hits(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """logits [X, C] float32, labels [X] int32, weights [X] float32 -> [X]: the weight, 0 where another is highest."""
    is_hit = tf.equal(tf.argmax(logits, axis=-1), tf.cast(labels, tf.int64))  # [X]; GPUs compare int32 on the host
    return weights * tf.cast(is_hit, tf.float32)
