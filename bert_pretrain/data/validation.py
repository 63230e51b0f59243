"""Checks that examples can be trained on; vectorised, with errors that name record and remedy.

Training refuses the first fault; check_data lists one of each kind and has further rules of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.schema import Examples

_INT32 = np.iinfo(np.int32)


class Limits(NamedTuple):
    """Sizes of the model's embedding tables; ids must be smaller."""

    vocab_size: int
    type_vocab_size: int


class Rule(NamedTuple):
    """One rule applied to E examples: where it is broken, and what the user reads then."""

    broken: np.ndarray  # [E, X] bool
    values: np.ndarray  # [E, X]
    feature: str
    remedy: str

    def describe(self, names: Sequence[str]) -> str:
        """One line about the first value that breaks the rule; names [E] are those of the examples."""
        row, column = np.argwhere(self.broken)[0]
        value = _shown(self.values[row, column])
        return f"{names[row]}: {self.feature} has {value} at index {column}; {self.remedy}"


def check_examples(examples: Examples, limits: Limits, names: Sequence[str]) -> None:
    """ValueError for the first broken rule, naming the record by its entry of names [E]."""
    for rule in rules(examples, limits):
        if rule.broken.any():
            raise ValueError(rule.describe(names))


def rules(examples: Examples, limits: Limits) -> Iterator[Rule]:
    """The rules without which training would fail or learn from garbage, applied to E examples."""
    mask = examples.input_mask
    lengths = np.count_nonzero(mask, axis=1)[:, None]  # [E, 1]
    is_token = np.arange(mask.shape[1]) < lengths  # [E, S]: ones, then zeros
    is_used = examples.masked_lm_weights != 0  # [E, P]
    vocabulary = f"it must be in [0, {limits.vocab_size}): were the shards made with another vocabulary?"
    packed = "it must be ones, then zeros; records packed by other tools are not read, packing happens while training"
    yield Rule(mask != is_token, mask, "input_mask", packed)
    yield Rule(lengths == 0, lengths, "the number of tokens", "a record must hold at least [CLS]")
    tokens, segments = examples.input_ids, examples.segment_ids
    yield Rule(is_token & _outside(tokens, limits.vocab_size), tokens, "input_ids", vocabulary)
    types = f"it must be in [0, {limits.type_vocab_size}): use the bert_config.json for which the data was made"
    yield Rule(is_token & _outside(segments, limits.type_vocab_size), segments, "segment_ids", types)
    weights = examples.masked_lm_weights
    finite = "weights must be finite and at least 0; 0 marks an unused slot"
    yield Rule(~((weights >= 0) & np.isfinite(weights)), weights, "masked_lm_weights", finite)
    positions, masked_ids = examples.masked_lm_positions, examples.masked_lm_ids
    column = "it must be a column within the record's tokens; make the shards again"
    yield Rule(is_used & ((positions < 0) | (positions >= lengths)), positions, "masked_lm_positions", column)
    yield Rule(is_used & _outside(masked_ids, limits.vocab_size), masked_ids, "masked_lm_ids", vocabulary)
    labels = examples.next_sentence_labels[:, None]
    yield Rule(_outside(labels, 2), labels, "next_sentence_labels", "it must be 0 or 1")


def _shown(value: np.generic) -> str:
    """A value, which schema.parse saturated if it is one of int32's limits."""
    return f"{value} or more" if value == _INT32.max else f"{value} or less" if value == _INT32.min else str(value)


def _outside(values: np.ndarray, size: int) -> np.ndarray:
    return (values < 0) | (values >= size)
