"""Our network on rows, run once: logits, Google's loss formula and its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import encoder, heads, losses
from tests.references.random_examples import RowBatch


class Results(NamedTuple):
    """What our network makes of a batch with dropout off."""

    masked_lm_logits: np.ndarray  # [M, V]
    next_sentence_logits: np.ndarray  # [E, 2]
    masked_lm_loss: float
    next_sentence_loss: float
    gradients: dict[str, np.ndarray]


def results(
    config: ModelConfig, weights: Mapping[str, np.ndarray], batch: RowBatch, backend: Backend = Backend.PLAIN
) -> Results:
    """Runs our encoder, heads and losses on weights given by variable name."""
    kernels = make_kernels(backend)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensors = {name: tf.constant(value) for name, value in weights.items()}
        rows = encoder.Rows(*map(tf.constant, batch[:4]))
        sequence = encoder.encode(tensors, rows, config, kernels)
        masked_lm_logits = heads.masked_lm_logits(tensors, sequence, tf.constant(batch.masked_positions))
        next_sentence_logits = heads.next_sentence_logits(tensors, sequence, tf.constant(batch.cls_positions))
        masked_lm = losses.cross_entropy(masked_lm_logits, batch.masked_ids, batch.masked_weights)
        one_each = np.ones(batch.next_sentence_labels.shape, np.float32)
        next_sentence = losses.cross_entropy(next_sentence_logits, batch.next_sentence_labels, one_each)
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
    """Norm of each variable's difference relative to the norm of their gradient.

    The true gradient of a key's bias is zero (softmax ignores what is added to all scores of a token), so both sides
    have rounding noise there; its difference is measured against a hundredth of the whole gradient's norm.
    """
    whole = np.sqrt(sum(np.sum(np.square(value)) for value in theirs.values()))
    return {
        name: float(
            np.linalg.norm(ours[name] - value) / (0.01 * whole if name.endswith("key/bias") else np.linalg.norm(value))
        )
        for name, value in theirs.items()
    }
