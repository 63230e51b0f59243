"""Losses as sums and counts, never means: only sums add up over micro-batches and ranks (design 5.1)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Sums(NamedTuple):
    """One task's sums over some of an update's tokens or examples, each a float32 scalar."""

    loss: tf.Tensor  # weighted cross entropy, nats
    correct: tf.Tensor  # weights of those whose highest logit is the label
    count: tf.Tensor  # weights of all


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> Sums:
    """logits [X, C] float32, labels [X] int32, weights [X] float32 -> their sums."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)  # [X]
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)  # [X]
    return Sums(
        loss=tf.reduce_sum(weights * losses),
        correct=tf.reduce_sum(weights * tf.cast(hits, tf.float32)),
        count=tf.reduce_sum(weights),
    )
