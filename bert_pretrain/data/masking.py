"""Which tokens of a sequence are to be predicted, and what stands in their place.

The rule of google-research/bert: 15 % of the tokens, marks included, but only words are chosen; of these 80 % become
[MASK], 10 % any vocabulary entry, 10 % stay. With whole words, the pieces of a word are chosen together, and a word
that would exceed the number is passed over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_pretrain.data.instances import Instances

_MASK_SHARE, _MASK_OR_KEEP_SHARE = 0.8, 0.9


class Masking(NamedTuple):
    """What is predicted of E sequences; slots beyond num_masked are 0."""

    input_ids: np.ndarray  # [E, S] int32, with the replacements
    positions: np.ndarray  # [E, P] int32, ascending
    ids: np.ndarray  # [E, P] int32, what stood there
    num_masked: np.ndarray  # [E] int64


class MaskingRule(NamedTuple):
    """How many are chosen and what replaces them."""

    masked_lm_prob: float
    max_predictions_per_seq: int
    mask_id: int
    vocab_size: int
    continues_word: np.ndarray | None = None  # [V] bool, ## entries: whole words are chosen; None: tokens


def mask(instances: Instances, rule: MaskingRule, rng: np.random.Generator) -> Masking:
    """Chooses and replaces tokens in each sequence."""
    choosable = _choosable(instances)
    wanted = np.minimum(
        rule.max_predictions_per_seq, np.maximum(1, np.rint(instances.num_tokens * rule.masked_lm_prob).astype(int))
    )
    if rule.continues_word is None:
        chosen = _choose_tokens(choosable, wanted, rule.max_predictions_per_seq, rng)
    else:
        starts_word = choosable & ~rule.continues_word[instances.ids]
        chosen = _choose_words(choosable, starts_word, wanted, rng)
    row, column = np.nonzero(chosen)  # row by row, columns ascending
    num_masked = chosen.sum(axis=1)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(num_masked) - num_masked, num_masked)
    positions = np.zeros((len(wanted), rule.max_predictions_per_seq), np.int32)
    ids = np.zeros_like(positions)
    original = instances.ids[row, column]
    positions[row, slot], ids[row, slot] = column, original
    share = rng.random(len(row))
    anything = rng.integers(0, rule.vocab_size, len(row))
    input_ids = instances.ids.copy()
    input_ids[row, column] = np.where(
        share < _MASK_SHARE, rule.mask_id, np.where(share < _MASK_OR_KEEP_SHARE, original, anything)
    )
    return Masking(input_ids, positions, ids, num_masked)


def _choosable(instances: Instances) -> np.ndarray:
    """Which columns hold words: [E, S] bool."""
    column = np.arange(instances.ids.shape[1])[None, :]
    choosable = (column > 0) & (column < instances.num_tokens[:, None] - 1)
    np.put_along_axis(choosable, instances.num_first[:, None] - 1, False, axis=1)
    return choosable


def _choose_tokens(
    choosable: np.ndarray, wanted: np.ndarray, max_predictions: int, rng: np.random.Generator
) -> np.ndarray:
    """The `wanted` columns of each row with the smallest random numbers, or all there are: [E, S] bool."""
    rank = rng.random(choosable.shape, dtype=np.float32)
    rank[~choosable] = 2.0
    num_candidates = min(max_predictions, choosable.shape[1] - 1)
    candidates = np.argpartition(rank, num_candidates, axis=1)[:, :num_candidates]
    candidate_rank = np.take_along_axis(rank, candidates, axis=1)
    order = np.argsort(candidate_rank, axis=1)
    taken = np.arange(num_candidates)[None, :] < np.minimum(wanted, choosable.sum(axis=1))[:, None]
    chosen = np.zeros(choosable.shape, bool)
    np.put_along_axis(chosen, np.take_along_axis(candidates, order, axis=1), taken, axis=1)
    return chosen


def _choose_words(
    choosable: np.ndarray, starts_word: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Words of each row in random order, each if it still fits into `wanted`: [E, S] bool."""
    num_rows, width = choosable.shape
    first = np.argmax(choosable, axis=1)
    starts_word = starts_word.copy()
    starts_word[np.arange(num_rows), first] = choosable[np.arange(num_rows), first]
    word = np.cumsum(starts_word, axis=1) - 1  # [E, S]; a token's word within its row
    num_words = word[:, -1] + 1
    flat_word = (word + np.arange(num_rows)[:, None] * width)[choosable]
    sizes = np.bincount(flat_word, minlength=num_rows * width).reshape(num_rows, width)  # [E, words]
    rank = rng.random((num_rows, int(num_words.max())), dtype=np.float32)
    rank[np.arange(rank.shape[1])[None, :] >= num_words[:, None]] = 2.0
    order = np.argsort(rank, axis=1)
    taken = np.zeros((num_rows, width), bool)
    left = wanted.copy()
    for turn in range(rank.shape[1]):
        going_on = np.flatnonzero((left > 0) & (turn < num_words))
        if not len(going_on):
            break
        candidate = order[going_on, turn]
        size = sizes[going_on, candidate]
        fits = size <= left[going_on]
        left[going_on] -= np.where(fits, size, 0)
        taken[going_on, candidate] = fits
    return choosable & np.take_along_axis(taken, np.maximum(word, 0), axis=1)
