"""Masking: which tokens of a sequence are to be predicted, and what replaces them.

The rule of google-research/bert's create_pretraining_data.py. The number of masked tokens is 15 % of all tokens,
[CLS] and [SEP] included, but [CLS] and [SEP] themselves are never masked. 80 % of the masked tokens become [MASK], 10 %
a random vocabulary entry, 10 % stay. With whole-word masking all pieces of a word are masked together, and a word with
more pieces than may still be masked is skipped.

make_data draws masks from a NumPy generator. `Draws` is what else random numbers may come from.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from bert_pretrain.data.vocab import Vocabulary

KEPT = -1  # as a replacement: the token stays
_MASK_SHARE, _MASK_OR_KEEP_SHARE = 0.8, 0.9
_REPLACEMENT_BITS = 32
_MAX_SHORT_COLUMN_BITS = 12  # leave 20 random bits of 32


class Sequences(Protocol):
    """E sequences before masking."""

    @property
    def ids(self) -> np.ndarray:
        """[E, S]."""
        ...

    @property
    def num_tokens(self) -> np.ndarray:
        """[E]."""
        ...

    def choosable(self) -> np.ndarray:
        """[E, S] bool: tokens other than [CLS], [SEP] and padding."""
        ...


class MaskingSettings(Protocol):
    """The flags of masking that make_data and run have in common."""

    @property
    def masked_lm_prob(self) -> float: ...  # noqa: D102

    @property
    def do_whole_word_mask(self) -> bool: ...  # noqa: D102


class Draws(Protocol):
    """Random numbers: the two methods of numpy.random.Generator that are used here."""

    def integers(self, low: int, high: int, size: tuple[int, ...], dtype: Any, endpoint: bool = False) -> np.ndarray:
        """Uniform integers in [low, high), or in [low, high] with `endpoint`."""
        ...

    def random(self, size: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Uniform numbers in [0, 1)."""
        ...


class Masking(NamedTuple):
    """Masked tokens of E sequences; prediction slots from num_masked on are 0."""

    input_ids: np.ndarray  # [E, S], with the replacements
    positions: np.ndarray  # [E, P], ascending
    ids: np.ndarray  # [E, P], the original tokens
    num_masked: np.ndarray  # [E]


class MaskingRule(NamedTuple):
    """How many tokens are masked, and what may replace them."""

    masked_lm_prob: float
    max_predictions_per_seq: int
    mask_id: int
    replacements: np.ndarray  # token ids, int32; a random one replaces 10 % of the masked tokens
    continues_word: np.ndarray | None = None  # [V] bool, ## entries, for whole-word masking; None: single tokens

    @classmethod
    def of(cls, settings: MaskingSettings, vocabulary: Vocabulary, max_predictions_per_seq: int) -> MaskingRule:
        """The rule that the flags ask for, with the token ids of a vocabulary."""
        continues_word = np.array([entry.startswith("##") for entry in vocabulary.entries])
        return cls(
            settings.masked_lm_prob,
            max_predictions_per_seq,
            vocabulary.id("[MASK]"),
            np.array(list(vocabulary.numbered().values()), np.int32),
            continues_word if settings.do_whole_word_mask else None,
        )


def mask_tokens(sequences: Sequences, rule: MaskingRule, rng: Draws) -> Masking:
    """Masks tokens of each sequence."""
    choosable = sequences.choosable()
    wanted = np.clip(np.rint(sequences.num_tokens * rule.masked_lm_prob), 1, rule.max_predictions_per_seq).astype(int)
    if rule.continues_word is None:
        columns = _choose_tokens(choosable, rule.max_predictions_per_seq, rng)
        num_masked = np.minimum(wanted, choosable.sum(axis=1))
    else:
        starts_word = choosable & ~rule.continues_word[sequences.ids]
        columns, num_masked = _choose_words(choosable, starts_word, wanted, rule.max_predictions_per_seq, rng)
    return replace_tokens(sequences, columns, num_masked, _replacements(columns.shape, rule, rng))


def replace_tokens(
    sequences: Sequences, columns: np.ndarray, num_masked: np.ndarray, replacements: np.ndarray
) -> Masking:
    """Masks the first num_masked [E] of columns [E, P] of each sequence with replacements [E, P], which may be KEPT."""
    used = np.arange(columns.shape[1]) < num_masked[:, None]
    # Column and replacement in one number: one sort, which is faster than an argsort. Unused slots come last.
    keys = np.where(used, columns << _REPLACEMENT_BITS | (replacements - KEPT), np.iinfo(np.int64).max)
    keys.sort(axis=1)
    columns = np.where(used, keys >> _REPLACEMENT_BITS, 0)
    original = np.where(used, np.take_along_axis(sequences.ids, columns, axis=1), 0)
    replaced = (keys & ((1 << _REPLACEMENT_BITS) - 1)) + KEPT
    input_ids = sequences.ids.copy()
    row, slot = np.nonzero(used & (replaced != KEPT))
    input_ids[row, columns[row, slot]] = replaced[row, slot]
    return Masking(input_ids, columns, original, num_masked)


def _replacements(shape: tuple[int, ...], rule: MaskingRule, rng: Draws) -> np.ndarray:
    share = rng.random(shape, dtype=np.float32)
    anything = rule.replacements[rng.integers(0, len(rule.replacements), shape, dtype=np.int32)]
    other = np.where(share < _MASK_OR_KEEP_SHARE, KEPT, anything)
    return np.where(share < _MASK_SHARE, rule.mask_id, other)


def _choose_tokens(choosable: np.ndarray, max_predictions: int, rng: Draws) -> np.ndarray:
    """[E, P]: the first P columns of each row in random order; columns that cannot be chosen come last."""
    num_columns = choosable.shape[1]
    column_bits = num_columns.bit_length()
    dtype = np.uint32 if column_bits <= _MAX_SHORT_COLUMN_BITS else np.uint64
    largest = np.iinfo(dtype).max
    column_mask = dtype((1 << column_bits) - 1)
    # Random numbers with the column in the low bits: a sort, which is faster than an argsort.
    keys = rng.integers(0, largest, choosable.shape, dtype, endpoint=True)
    keys &= ~column_mask
    keys |= np.arange(num_columns, dtype=dtype)
    keys |= np.where(choosable, dtype(0), dtype(largest))
    if num_columns > max_predictions:  # faster than sorting all of them
        keys.partition(max_predictions - 1, axis=1)
    first = np.sort(keys[:, :max_predictions], axis=1)
    chosen = np.zeros((len(keys), max_predictions), np.int64)
    chosen[:, :num_columns] = first & column_mask
    return chosen


def _choose_words(
    choosable: np.ndarray,
    starts_word: np.ndarray,
    wanted: np.ndarray,
    max_predictions: int,
    rng: Draws,
) -> tuple[np.ndarray, np.ndarray]:
    """Takes words of each row in random order, each if it still fits into `wanted` [E].

    Returns the columns [E, P] of their tokens and how many there are [E].
    """
    num_rows, width = choosable.shape
    first = np.argmax(choosable, axis=1)
    starts_word = starts_word.copy()
    starts_word[np.arange(num_rows), first] = choosable[np.arange(num_rows), first]
    word = np.cumsum(starts_word, axis=1) - 1  # [E, S]; a token's word within its row
    flat_word = (word + np.arange(num_rows)[:, None] * width)[choosable]
    sizes = np.bincount(flat_word, minlength=num_rows * width).reshape(num_rows, width)  # [E, words]
    is_taken = _take_words(sizes, word[:, -1] + 1, wanted, rng)
    row, column = np.nonzero(choosable & np.take_along_axis(is_taken, np.maximum(word, 0), axis=1))
    num_masked = np.bincount(row, minlength=num_rows)
    columns = np.zeros((num_rows, max_predictions), np.int64)
    columns[row, np.arange(len(row)) - np.repeat(np.cumsum(num_masked) - num_masked, num_masked)] = column
    return columns, num_masked


def _take_words(sizes: np.ndarray, num_words: np.ndarray, wanted: np.ndarray, rng: Draws) -> np.ndarray:
    """[E, words] bool: words of sizes [E, words] in random order, each if it still fits into `wanted` [E]."""
    rank = rng.random((len(sizes), int(num_words.max())), dtype=np.float32)
    rank[np.arange(rank.shape[1])[None, :] >= num_words[:, None]] = 2.0
    order = np.argsort(rank, axis=1, kind="stable")  # equal ranks must not depend on the width of the batch
    is_taken = np.zeros(sizes.shape, bool)
    remaining = wanted.copy()
    for turn in range(rank.shape[1]):
        rows = np.flatnonzero((remaining > 0) & (turn < num_words))
        if not len(rows):
            break
        candidate = order[rows, turn]
        size = sizes[rows, candidate]
        fits = size <= remaining[rows]
        remaining[rows] -= np.where(fits, size, 0)
        is_taken[rows, candidate] = fits
    return is_taken
