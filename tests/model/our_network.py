"""Runs our network on rows of examples: logits, the losses of Google's formula, and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import encoder, heads
from tests.references.random_examples import RowBatch


class Results(NamedTuple):
    """Outputs of our network for a batch, without dropout."""

    masked_lm_logits: np.ndarray  # [M, V]
    next_sentence_logits: np.ndarray  # [E, 2]
    masked_lm_loss: float
    next_sentence_loss: float
    gradients: dict[str, np.ndarray]


def results(
    config: ModelConfig, weights: Mapping[str, np.ndarray], batch: RowBatch, backend: Backend = Backend.PLAIN
) -> Results:
    """Runs encoder, heads and losses on weights by variable name."""
    kernels = make_kernels(backend)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensors = {name: tf.constant(value) for name, value in weights.items()}
        rows = encoder.Rows(*map(tf.constant, batch[:4]))
        sequence = encoder.encode(tensors, rows, config, kernels)
        masked_lm_logits = heads.masked_lm_logits(tensors, sequence, tf.constant(batch.masked_positions))
        next_sentence_logits = heads.next_sentence_logits(tensors, sequence, tf.constant(batch.cls_positions))
        masked_lm = heads.cross_entropy(masked_lm_logits, batch.masked_ids, batch.masked_weights)
        ones = np.ones(batch.next_sentence_labels.shape, np.float32)
        next_sentence = heads.cross_entropy(next_sentence_logits, batch.next_sentence_labels, ones)
        masked_lm_loss = masked_lm.loss / (masked_lm.count + 1e-5)  # Google's denominator
        next_sentence_loss = next_sentence.loss / next_sentence.count
        gradients = tf.gradients(masked_lm_loss + next_sentence_loss, list(tensors.values()))
        return Results(
            *session.run(
                (
                    masked_lm_logits,
                    next_sentence_logits,
                    masked_lm_loss,
                    next_sentence_loss,
                    dict(zip(tensors, map(tf.convert_to_tensor, gradients))),
                )
            )
        )


def gradient_errors(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each variable, the norm of the difference relative to the norm of their gradient.

    The true gradient of a key's bias is zero, because softmax ignores a constant added to all scores of a query. There,
    both sides have only rounding errors, and the difference is relative to a hundredth of the global norm.
    """
    norms = {name: np.linalg.norm(value) for name, value in theirs.items()}
    smallest = 0.01 * np.sqrt(sum(np.square(norm) for norm in norms.values()))
    return {
        name: float(np.linalg.norm(ours[name] - value) / (smallest if name.endswith("key/bias") else norms[name]))
        for name, value in theirs.items()
    }
