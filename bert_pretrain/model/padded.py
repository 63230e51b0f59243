"""The network on padded examples, as other programs call it: one example a row, a mask, logits for every token.

Letters: E examples, S tokens with padding, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.model import encoder, heads
from bert_pretrain.model.layers import Weights


class Outputs(NamedTuple):
    """What the network says of padded examples, float32. What stands at padding has no meaning."""

    sequence_output: np.ndarray  # [E, S, H], the last layer
    pooled_output: np.ndarray  # [E, H]
    masked_lm_logits: np.ndarray  # [E, S, V]
    next_sentence_logits: np.ndarray  # [E, 2]; class 0: the second segment follows; 1: it is random


class OutputTensors(NamedTuple):
    """Outputs in a graph, field by field."""

    sequence_output: tf.Tensor
    pooled_output: tf.Tensor
    masked_lm_logits: tf.Tensor
    next_sentence_logits: tf.Tensor


assert OutputTensors._fields == Outputs._fields


def encode_padded(
    weights: Weights, word_ids: tf.Tensor, mask: tf.Tensor, type_ids: tf.Tensor, config: ModelConfig
) -> OutputTensors:
    """word_ids, mask (0 at padding) and type_ids are [E, S] int32. No dropout; TensorFlow's own operations alone."""
    num_examples, width = tf.unstack(tf.shape(word_ids))
    positions = tf.tile(tf.range(width)[None, :], [num_examples, 1])  # [E, S]
    rows = encoder.Rows(word_ids, type_ids, positions, tf.cast(mask > 0, tf.int32))
    sequence = encoder.encode(weights, rows, config, GraphKernels())
    first = tf.range(num_examples) * width  # [E], the slots of [CLS]
    logits = heads.masked_lm_logits(weights, sequence, tf.range(num_examples * width))  # [E * S, V]
    return OutputTensors(
        tf.reshape(sequence.tokens.pad(sequence.hidden), [num_examples, width, config.hidden_size]),
        heads.pooled_output(weights, sequence, first),
        tf.reshape(logits, [num_examples, width, config.vocab_size]),
        heads.next_sentence_logits(weights, sequence, first),
    )
