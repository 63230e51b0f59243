"""Whether examples can be trained on: vectorised checks that name the record and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.schema import Examples


class Limits(NamedTuple):
    """The model's table sizes, which the data must stay below."""

    vocab_size: int
    type_vocab_size: int


def check_examples(examples: Examples, limits: Limits, names: Sequence[str]) -> None:
    """Raises ValueError for the first fault found, naming the record by its entry of names [E]."""
    mask = examples.input_mask
    lengths = np.count_nonzero(mask, axis=1)
    used = np.arange(mask.shape[1]) < lengths[:, None]  # [E, S], what the mask is where it is sound
    slots = examples.masked_lm_weights != 0  # [E, P]
    vocabulary = f"the model has vocab_size {limits.vocab_size}: were the shards made with another vocabulary?"
    _refuse(
        mask != used, mask, names, "input_mask",
        "it must be ones, then zeros; records packed by other tools are not read, packing happens while training",
    )  # fmt: skip
    _refuse(lengths[:, None] == 0, lengths[:, None], names, "the number of tokens", "there must be a [CLS] at least")
    tokens = examples.input_ids
    _refuse(used & _outside(tokens, limits.vocab_size), tokens, names, "input_ids", vocabulary)
    segments = examples.segment_ids
    _refuse(
        used & _outside(segments, limits.type_vocab_size), segments, names, "segment_ids",
        f"the model has type_vocab_size {limits.type_vocab_size}: use the bert_config the data was made for",
    )  # fmt: skip
    weights = examples.masked_lm_weights
    _refuse(
        ~((weights >= 0) & np.isfinite(weights)), weights, names, "masked_lm_weights",
        "weights must be finite and at least 0; 0 marks an unused slot",
    )  # fmt: skip
    positions = examples.masked_lm_positions
    _refuse(
        slots & ((positions < 0) | (positions >= lengths[:, None])), positions, names, "masked_lm_positions",
        "it must be a column within the record's tokens; make the shards again",
    )  # fmt: skip
    masked_ids = examples.masked_lm_ids
    _refuse(slots & _outside(masked_ids, limits.vocab_size), masked_ids, names, "masked_lm_ids", vocabulary)
    labels = examples.next_sentence_labels[:, None]
    _refuse(_outside(labels, 2), labels, names, "next_sentence_labels", "it must be 0 or 1")


def _outside(values: np.ndarray, size: int) -> np.ndarray:
    return (values < 0) | (values >= size)


def _refuse(faults: np.ndarray, values: np.ndarray, names: Sequence[str], feature: str, remedy: str) -> None:
    if faults.any():
        line, column = np.argwhere(faults)[0]
        raise ValueError(f"{names[line]}: {feature} has {values[line, column]} at index {column}; {remedy}")
