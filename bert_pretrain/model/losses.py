"""Losses as sums and counts instead of means: only sums can be added over micro-batches and ranks.

google-research/bert run_pretraining.py (get_masked_lm_output, get_next_sentence_output) divides them per batch;
train/train_step.py divides them by the counts of the whole update.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Sums(NamedTuple):
    """Sums over tokens or examples, each a float32 scalar."""

    loss: tf.Tensor  # weighted cross entropy, nats
    correct: tf.Tensor  # sum of the weights where the highest logit is the label
    count: tf.Tensor  # sum of all weights


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> Sums:
    """logits [X, C] float32, labels [X] int32, weights [X] float32 -> sums over X."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)  # [X]
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)  # [X]
    return Sums(
        loss=tf.reduce_sum(weights * losses),
        correct=tf.reduce_sum(weights * tf.cast(hits, tf.float32)),
        count=tf.reduce_sum(weights),
    )
