"""The features of a record on disk, the arrays that they become, and the rules that these must follow.

Checks are vectorised, and an error names record and remedy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, cast

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

_MAX_NAMES = 300  # characters of an error message
_INT32 = np.iinfo(np.int32)
# Pattern of an error message -> what the user reads.
_EXPLANATIONS = (
    (r"^ValueError: (.+)$", r"\1"),  # of our own code, passed through numpy_function
    (
        r"Name: (.+), Key: (\w+), Index: \d+\.\s+Number of \w+ values != expected\.\s+"
        r"Values size: (\d+) but output shape: \[(\d+)\]",
        r"\1: \2 has \3 values, the first record of the data has \4; train on records of one length at a time",
    ),
    (
        r"Name: (.+), Feature: (\w+) .*is required but could not be found",
        r"\1: feature \2 is missing; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Name: (.+), Key: (\w+), .*Data type: (\w+) but expected type: (\w+)",
        r"\1: \2 holds \3 values, expected \4; docs/data_format.md lists what a pretraining record holds",
    ),
    (
        r"Name: (.+), Key: (\w+), .*Can't parse serialized Example",
        r"\1: \2 cannot be read although the record's CRC is right; make the shards again",
    ),
    (
        r"Could not parse example input|Unsupported datatype",
        r"a record is not a tf.train.Example although its CRC is right; make the shards again",
    ),
)


class Feature(NamedTuple):
    """One feature of a record: its name, how many values (S, P or 1), their type (int64 or float32) and meaning."""

    name: str
    length: str
    dtype: type
    meaning: str


FEATURES = (
    Feature("input_ids", "S", int, "[CLS] A [SEP] B [SEP] as vocabulary numbers, or [CLS] A [SEP], a single sequence"),
    Feature("input_mask", "S", int, "1 for each token, 0 for padding"),
    Feature("segment_ids", "S", int, "0 up to and including the first [SEP], then 1"),
    Feature("masked_lm_positions", "P", int, "columns of input_ids that are to be predicted"),
    Feature("masked_lm_ids", "P", int, "the tokens that stood there"),
    Feature("masked_lm_weights", "P", float, "1 for each prediction, 0 for an unused slot"),
    Feature("next_sentence_labels", "1", int, "0: B follows A in the text, or there is no B; 1: B is from elsewhere"),
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


class ExampleTensors(NamedTuple):
    """Examples as tensors, field by field."""

    input_ids: tf.Tensor
    input_mask: tf.Tensor
    segment_ids: tf.Tensor
    masked_lm_positions: tf.Tensor
    masked_lm_ids: tf.Tensor
    masked_lm_weights: tf.Tensor
    next_sentence_labels: tf.Tensor

    def numpy(self) -> Examples:
        """Their values, outside of graphs."""
        return Examples(*(column.numpy() for column in self))


assert ExampleTensors._fields == Examples._fields


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


class BatchTensors(NamedTuple):
    """A Batch in a graph, field by field."""

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    position_ids: tf.Tensor
    example_ids: tf.Tensor
    masked_positions: tf.Tensor
    masked_ids: tf.Tensor
    masked_weights: tf.Tensor
    cls_positions: tf.Tensor
    next_sentence_labels: tf.Tensor
    row_splits: tf.Tensor
    masked_splits: tf.Tensor
    example_splits: tf.Tensor


assert BatchTensors._fields == Batch._fields


def encode_examples(examples: Examples) -> list[bytes]:
    """The records of E examples as serialized tf.train.Example messages."""
    columns = [np.asarray(column).reshape(len(column), -1).tolist() for column in examples]
    return [_encode_one(values) for values in zip(*columns)]


def _encode_one(values: tuple[list[float], ...]) -> bytes:
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


def encode_names(names: Sequence[str]) -> tf.Tensor:
    """[E] string: names of records for parse_examples; the paths in them may be no UTF-8."""
    return tf.constant(list(map(os.fsencode, names)))


def read_examples(records: Sequence[bytes], names: Sequence[str], seq_length: int, max_predictions: int) -> Examples:
    """parse_examples without TensorFlow's operations, whose first use takes a GPU's memory; for a few records.

    ValueError, naming the record by its entry of names [E], for one that is not of these lengths.
    """
    expected, limits = (seq_length, max_predictions), (_INT32.min, _INT32.max)
    kinds = {int: "int64_list", float: "float_list"}
    columns: list[list[np.ndarray]] = []
    for record, name in zip(records, names):
        found = record_lengths(record, name)
        if found != expected:
            raise ValueError(
                f"{name}: this record has {found[0]} tokens and {found[1]} predictions, the first of the data has "
                f"{seq_length} and {max_predictions}; train on records of one length at a time"
            )
        stored = tf.train.Example.FromString(record).features.feature
        values = [np.array(getattr(stored[feature.name], kinds[feature.dtype]).value) for feature in FEATURES]
        columns.append([value.clip(*limits) if value.dtype == np.int64 else value for value in values])
    dtypes = [np.float32 if feature.dtype is float else np.int32 for feature in FEATURES]
    stacked = [np.stack(column).astype(dtype) for column, dtype in zip(zip(*columns), dtypes)]
    examples = Examples(**dict(zip(Examples._fields, stacked)))
    return examples._replace(next_sentence_labels=examples.next_sentence_labels[:, 0])


def parse_examples(serialized: tf.Tensor, names: tf.Tensor, seq_length: int, max_predictions: int) -> ExampleTensors:
    """Parses records [E] string with one operation. Integers beyond int32 become its smallest or largest number.

    TensorFlow's error for a bad record quotes its entry of names.
    """
    sizes = {"S": seq_length, "P": max_predictions, "1": 1}
    expected = {
        feature.name: tf.io.FixedLenFeature([sizes[feature.length]], tf.float32 if feature.dtype is float else tf.int64)
        for feature in FEATURES
    }
    parsed = tf.io.parse_example(
        serialized,
        expected,
        example_names=names,  # pyright: ignore[reportArgumentType]  # a tensor, too, which the stub lacks
    )
    # Saturated, because tf.cast wraps: 2**32 + 7 would become the valid id 7. validation_rules refuses the limits.
    columns = {
        name: value if value.dtype == tf.float32 else tf.saturate_cast(value, tf.int32)
        for name, value in cast("dict[str, tf.Tensor]", parsed).items()  # none of the features is ragged or sparse
    }
    columns["next_sentence_labels"] = tf.squeeze(columns["next_sentence_labels"], axis=1)
    return ExampleTensors(**columns)


class Limits(NamedTuple):
    """Sizes of the model's embedding tables; ids must be smaller."""

    vocab_size: int
    type_vocab_size: int


class BrokenRule(NamedTuple):
    """One rule applied to E examples: where it is broken, and what the user reads then."""

    broken: np.ndarray  # [E, X] bool
    values: np.ndarray  # [E, X]
    feature: str
    remedy: str

    def describe(self, names: Sequence[str]) -> str:
        """One line about the first value that breaks the rule; names [E] are those of the examples."""
        row, column = (int(place) for place in np.argwhere(self.broken)[0])
        value = _shown_value(self.values[row, column])
        return f"{names[row]}: {self.feature} has {value} at index {column}; {self.remedy}"


def check_examples(examples: Examples, limits: Limits, names: Sequence[str]) -> None:
    """ValueError for the first broken rule, naming the record by its entry of names [E]."""
    for rule in validation_rules(examples, limits):
        if rule.broken.any():
            raise ValueError(rule.describe(names))


def validation_rules(examples: Examples, limits: Limits) -> Iterator[BrokenRule]:
    """The rules without which training would fail or learn from garbage, applied to E examples."""
    mask = examples.input_mask
    lengths = np.count_nonzero(mask, axis=1)[:, None]  # [E, 1]
    is_token = np.arange(mask.shape[1]) < lengths  # [E, S]: ones, then zeros
    is_used = examples.masked_lm_weights != 0  # [E, P]
    vocabulary = f"it must be in [0, {limits.vocab_size}): were the shards made with another vocabulary?"
    packed = "it must be ones, then zeros; records packed by other tools are not read, packing happens while training"
    yield BrokenRule(mask != is_token, mask, "input_mask", packed)
    yield BrokenRule(lengths == 0, lengths, "the number of tokens", "a record must hold at least [CLS]")
    tokens, segments = examples.input_ids, examples.segment_ids
    yield BrokenRule(is_token & _outside(tokens, limits.vocab_size), tokens, "input_ids", vocabulary)
    types = f"it must be in [0, {limits.type_vocab_size}): use the bert_config.json for which the data was made"
    yield BrokenRule(is_token & _outside(segments, limits.type_vocab_size), segments, "segment_ids", types)
    weights = examples.masked_lm_weights
    finite = "weights must be finite and at least 0; 0 marks an unused slot"
    yield BrokenRule(~((weights >= 0) & np.isfinite(weights)), weights, "masked_lm_weights", finite)
    positions, masked_ids = examples.masked_lm_positions, examples.masked_lm_ids
    column = "it must be a column within the record's tokens; make the shards again"
    yield BrokenRule(is_used & ((positions < 0) | (positions >= lengths)), positions, "masked_lm_positions", column)
    yield BrokenRule(is_used & _outside(masked_ids, limits.vocab_size), masked_ids, "masked_lm_ids", vocabulary)
    labels = examples.next_sentence_labels[:, None]
    yield BrokenRule(_outside(labels, 2), labels, "next_sentence_labels", "it must be 0 or 1")


def _shown_value(value: np.generic) -> str:
    """A value, which schema.parse saturated if it is one of int32's limits."""
    return f"{value} or more" if value == _INT32.max else f"{value} or less" if value == _INT32.min else str(value)


def _outside(values: np.ndarray, size: int) -> np.ndarray:
    return (values < 0) | (values >= size)


def explain_input_error(error: Exception) -> Optional[ValueError]:
    """One line for an exception of session.run that bad input caused; None for any other.

    The exception is a tf.errors.OpError, or a UnicodeDecodeError, which session.run raises where TensorFlow's message
    quotes a record's bytes.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="replace")
    else:
        message = getattr(error, "message", None) or ""
    for pattern, line in _EXPLANATIONS:
        match = re.search(pattern, message, re.MULTILINE)
        if match:
            return ValueError(match.expand(line))
    return None
