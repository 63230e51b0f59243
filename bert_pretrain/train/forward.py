"""The forward pass: a batch of rows -> sums over its examples, and from sums the metrics that users read."""

from __future__ import annotations

from typing import NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.packing import WIDTH_MULTIPLE
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import Kernels
from bert_pretrain.model import encoder, heads
from bert_pretrain.model.layers import FLOAT32, Precision, Weights


class Statistics(NamedTuple):
    """Sums over examples. Those of micro-batches and of ranks can be added."""

    masked_lm_loss: float  # nats, weighted
    masked_lm_correct: float
    masked_lm_count: float
    next_sentence_loss: float  # nats
    next_sentence_correct: float
    next_sentence_count: float  # examples, or 0 where next sentences are not predicted
    examples: float
    tokens: float  # without padding
    squared_lengths: float  # sum over examples of length^2, for the work of attention
    computed: float  # tokens plus the padding that the linear layers compute


class StatisticTensors(NamedTuple):
    """Statistics in a graph, float32 scalars, field by field."""

    masked_lm_loss: tf.Tensor
    masked_lm_correct: tf.Tensor
    masked_lm_count: tf.Tensor
    next_sentence_loss: tf.Tensor
    next_sentence_correct: tf.Tensor
    next_sentence_count: tf.Tensor
    examples: tf.Tensor
    tokens: tf.Tensor
    squared_lengths: tf.Tensor
    computed: tf.Tensor


assert StatisticTensors._fields == Statistics._fields


class ForwardPass(NamedTuple):
    """What comes of a batch."""

    statistics: StatisticTensors
    masked_lm_hits: tf.Tensor  # [M] float32: the weight of a masked token that is predicted right, else 0


def forward_pass(
    weights: Weights,
    batch: BatchTensors,
    model: ModelConfig,
    kernels: Kernels,
    dropout: Optional[Dropout] = None,
    precision: Precision = FLOAT32,
    recompute: bool = False,
    next_sentence: bool = True,
) -> ForwardPass:
    """Runs encoder, heads and losses over all rows of the batch. next_sentence: whether that is predicted, too."""
    rows = encoder.Rows(batch.token_ids, batch.segment_ids, batch.position_ids, batch.example_ids)
    # XLA would compile the last layer for each number of masked tokens.
    read = [batch.masked_positions, batch.cls_positions] if next_sentence else [batch.masked_positions]
    output_slots = None if kernels.is_compiled else tf.concat(read, axis=0)
    sequence = encoder.encode(weights, rows, model, kernels, dropout, precision, recompute, output_slots)
    logits = heads.masked_lm_logits(weights, sequence, batch.masked_positions)
    masked_lm = heads.cross_entropy(logits, batch.masked_ids, batch.masked_weights)
    predicted = heads.LossSums(*[tf.zeros([])] * 3)
    if next_sentence:
        predicted = heads.cross_entropy(
            heads.next_sentence_logits(weights, sequence, batch.cls_positions),
            batch.next_sentence_labels,
            tf.ones_like(batch.next_sentence_labels, tf.float32),
        )
    examples, computed = (
        tf.cast(tf.size(one), tf.float32) for one in (batch.next_sentence_labels, sequence.tokens.slots)
    )
    statistics = StatisticTensors(*masked_lm, *predicted, examples, *_token_counts(batch), computed)
    return ForwardPass(statistics, heads.hits(logits, batch.masked_ids, batch.masked_weights))


def micro_batch(batch: BatchTensors, k: tf.Tensor) -> BatchTensors:
    """The rows, masked tokens and examples of micro-batch k, with flat positions counted from its first row."""
    width = tf.shape(batch.token_ids)[1]
    first = batch.row_splits[k] * width
    rows = _slice(batch.row_splits, k)
    masked = _slice(batch.masked_splits, k)
    examples = _slice(batch.example_splits, k)
    return BatchTensors(
        token_ids=batch.token_ids[rows],
        segment_ids=batch.segment_ids[rows],
        position_ids=batch.position_ids[rows],
        example_ids=batch.example_ids[rows],
        masked_positions=batch.masked_positions[masked] - first,
        masked_ids=batch.masked_ids[masked],
        masked_weights=batch.masked_weights[masked],
        cls_positions=batch.cls_positions[examples] - first,
        next_sentence_labels=batch.next_sentence_labels[examples],
        row_splits=batch.row_splits[k : k + 2],
        masked_splits=batch.masked_splits[k : k + 2],
        example_splits=batch.example_splits[k : k + 2],
    )


def narrow_rows(batch: BatchTensors) -> BatchTensors:
    """A micro-batch in rows as wide as its fullest, rounded up to WIDTH_MULTIPLE: those in which it was packed."""
    width = tf.shape(batch.token_ids)[1]
    fullest = tf.reduce_max(tf.reduce_sum(tf.cast(batch.example_ids > 0, tf.int32), axis=1))
    own_width = tf.minimum(width, -(-fullest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)

    def moved(positions: tf.Tensor) -> tf.Tensor:
        return positions // width * own_width + tf.math.floormod(positions, width)

    return batch._replace(
        token_ids=batch.token_ids[:, :own_width],
        segment_ids=batch.segment_ids[:, :own_width],
        position_ids=batch.position_ids[:, :own_width],
        example_ids=batch.example_ids[:, :own_width],
        masked_positions=moved(batch.masked_positions),
        cls_positions=moved(batch.cls_positions),
    )


def _slice(splits: tf.Tensor, k: tf.Tensor) -> slice:
    """splits[k]:splits[k + 1], the k-th part of what splits [K+1] divides."""
    return slice(splits[k], splits[k + 1])


def _token_counts(batch: BatchTensors) -> tuple[tf.Tensor, tf.Tensor]:
    real = tf.cast(batch.example_ids > 0, tf.float32)  # [R, S]
    # 1 + 3 + 5 + ... + (2L - 1) = L^2, so positions alone tell the squared lengths.
    odd = 2.0 * tf.cast(batch.position_ids, tf.float32) + 1.0
    return tf.reduce_sum(real), tf.reduce_sum(real * odd)


def ratio(numerator: float, denominator: float) -> Optional[float]:
    """numerator / denominator, or None where nothing was counted."""
    return float(numerator) / float(denominator) if denominator else None


def summarize(sums: Statistics) -> dict[str, Optional[float]]:
    """Losses in nats per masked token and per example, accuracies as shares; None where nothing was counted."""
    return {
        "masked_lm_loss": ratio(sums.masked_lm_loss, sums.masked_lm_count),
        "masked_lm_accuracy": ratio(sums.masked_lm_correct, sums.masked_lm_count),
        "next_sentence_loss": ratio(sums.next_sentence_loss, sums.next_sentence_count),
        "next_sentence_accuracy": ratio(sums.next_sentence_correct, sums.next_sentence_count),
    }


def loss_of(sums: Statistics, next_sentence_weight: float = 1.0) -> float:
    """Mean masked-LM loss plus the weighted mean next-sentence loss, in nats, of sums that are numbers."""
    metrics = summarize(sums)
    return (metrics["masked_lm_loss"] or 0.0) + next_sentence_weight * (metrics["next_sentence_loss"] or 0.0)


def mean_loss(statistics: tf.Tensor, next_sentence_weight: float = 1.0) -> tf.Tensor:
    """Statistics [10] -> mean masked-LM loss plus the weighted mean next-sentence loss, in nats."""
    sums = StatisticTensors(*tf.unstack(statistics))
    masked_lm = tf.math.divide_no_nan(sums.masked_lm_loss, sums.masked_lm_count)
    next_sentence = tf.math.divide_no_nan(sums.next_sentence_loss, sums.next_sentence_count)
    return masked_lm + next_sentence_weight * next_sentence
