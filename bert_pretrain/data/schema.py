"""The features of a record on disk, and the arrays that they become.

Feature names are written here, and in make_data/serialization.py, which writes records without TensorFlow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

_MAX_NAMES = 300  # characters of an error message


class Feature(NamedTuple):
    """One feature of a record: its name, how many values (S, P or 1), their type (int64 or float32) and meaning."""

    name: str
    length: str
    dtype: type
    meaning: str


FEATURES = (
    Feature("input_ids", "S", int, "[CLS] A [SEP] B [SEP] as vocabulary numbers"),
    Feature("input_mask", "S", int, "1 for each token, 0 for padding"),
    Feature("segment_ids", "S", int, "0 up to and including the first [SEP], then 1"),
    Feature("masked_lm_positions", "P", int, "columns of input_ids that are to be predicted"),
    Feature("masked_lm_ids", "P", int, "the tokens that stood there"),
    Feature("masked_lm_weights", "P", float, "1 for each prediction, 0 for an unused slot"),
    Feature("next_sentence_labels", "1", int, "0: B follows A in the text, 1: B is from elsewhere"),
)


class Examples(NamedTuple):
    """Parsed records, one row an example; int32 except the weights. E examples, S tokens, P predictions."""

    input_ids: np.ndarray  # [E, S]
    input_mask: np.ndarray  # [E, S]
    segment_ids: np.ndarray  # [E, S]
    masked_lm_positions: np.ndarray  # [E, P]
    masked_lm_ids: np.ndarray  # [E, P]
    masked_lm_weights: np.ndarray  # [E, P] float32, 0 = unused slot
    next_sentence_labels: np.ndarray  # [E]


class Batch(NamedTuple):
    """The rows of one update or of one evaluation batch, in K micro-batches: the model's input.

    S is the width of these rows. A flat position is row * S + column. M counts only prediction slots in use.
    """

    token_ids: np.ndarray  # [R, S] int32
    segment_ids: np.ndarray  # [R, S] int32
    position_ids: np.ndarray  # [R, S] int32, from 0 in each example
    example_ids: np.ndarray  # [R, S] int32, from 1 in each row, 0 = padding
    masked_positions: np.ndarray  # [M] int32, flat
    masked_ids: np.ndarray  # [M] int32
    masked_weights: np.ndarray  # [M] float32
    cls_positions: np.ndarray  # [E] int32, flat
    next_sentence_labels: np.ndarray  # [E] int32
    row_splits: np.ndarray  # [K+1] int32: micro-batch k has rows row_splits[k]:row_splits[k+1]
    masked_splits: np.ndarray  # [K+1] int32: the same for masked tokens
    example_splits: np.ndarray  # [K+1] int32: the same for examples


def encode(examples: Examples) -> list[bytes]:
    """The records of E examples as serialized tf.train.Example messages."""
    columns = [np.asarray(column).reshape(len(column), -1).tolist() for column in examples]
    return [_encode_one(values) for values in zip(*columns)]


def _encode_one(values: tuple) -> bytes:
    example = tf.train.Example()
    for feature, column in zip(FEATURES, values):
        stored = example.features.feature[feature.name]
        (stored.float_list if feature.dtype is float else stored.int64_list).value.extend(column)
    return example.SerializeToString(deterministic=True)


def record_lengths(record: bytes, name: str) -> tuple[int, int]:
    """S and P of a record. ValueError, naming it by `name`, if it is not a pretraining record."""
    try:
        stored = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(
            f"{name}: not a tf.train.Example ({error}); make shards with bert_pretrain.make_data"
        ) from None
    lengths: dict[str, int] = {}
    for feature in FEATURES:
        if feature.name not in stored:
            present = ascii(", ".join(sorted(stored)) or "none")[1:-1][:_MAX_NAMES]  # they may be anything
            raise ValueError(
                f"{name}: feature {feature.name} is missing, present are {present}; "
                f"docs/data_format.md lists what a pretraining record holds"
            )
        kind = "float_list" if feature.dtype is float else "int64_list"
        length = len(getattr(stored[feature.name], kind).value)
        expected = 1 if feature.length == "1" else lengths.setdefault(feature.length, length)
        if length != expected or not length:
            raise ValueError(
                f"{name}: {feature.name} has {length} {kind} values, expected {expected or 'at least one'}; "
                f"docs/data_format.md lists what a pretraining record holds"
            )
    return lengths["S"], lengths["P"]


def parse(serialized: tf.Tensor, names: tf.Tensor, seq_length: int, max_predictions: int) -> Examples:
    """Parses records [E] string with one operation. Integers beyond int32 become its smallest or largest number.

    TensorFlow's error for a bad record quotes its entry of names.
    """
    sizes = {"S": seq_length, "P": max_predictions, "1": 1}
    expected = {
        feature.name: tf.io.FixedLenFeature([sizes[feature.length]], tf.float32 if feature.dtype is float else tf.int64)
        for feature in FEATURES
    }
    parsed = tf.io.parse_example(serialized, expected, example_names=names)
    # Saturated, because tf.cast wraps: 2**32 + 7 would become the valid id 7. validation.py refuses the limits.
    columns = {
        name: value if value.dtype == tf.float32 else tf.saturate_cast(value, tf.int32)
        for name, value in parsed.items()
    }
    columns["next_sentence_labels"] = tf.squeeze(columns["next_sentence_labels"], axis=1)
    return Examples(**columns)
