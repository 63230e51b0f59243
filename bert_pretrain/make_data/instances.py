"""Sentence pairs for next-sentence prediction, cut from tokenized documents with NumPy.

The procedure of google-research/bert's create_pretraining_data.py: fill a chunk with sentences up to a target length,
cut it at random into A and B, and half of the time replace B by text from another document. The sentences of a chunk
are adjacent in the text, so a pair is two ranges of token ids. Many documents are processed in step, one chunk of each
at a time, and random numbers are drawn for all of them together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data.tokenized_text import TokenizedText

NUM_SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
_NUM_ESTIMATES, _MIN_ESTIMATED_TOKENS = 3, 2_000_000
_MAX_TRIES = 10  # to find another document for B; after them B may come from the same document


class Pairs(NamedTuple):
    """E sentence pairs as ranges of TokenizedText.ids, and whether B comes from another document."""

    a_start: np.ndarray  # [E] int64
    a_end: np.ndarray  # [E] int64
    b_start: np.ndarray  # [E] int64
    b_end: np.ndarray  # [E] int64
    is_random_next: np.ndarray  # [E] bool


def balanced_random_prob(text: TokenizedText, max_seq_length: int, short_seq_prob: float) -> float:
    """The random_prob of draw_pairs with which half of all pairs are random.

    A chunk of a single sentence, as at the end of a document, always gets a random B. Where many chunks are so, as in
    short documents, the others must have one less often than every second time.
    """
    prob, rng = 0.5, np.random.default_rng(0)
    num_passes = 1 + _MIN_ESTIMATED_TOKENS // (len(text.ids) + 1) if text.num_documents else 1
    for _ in range(_NUM_ESTIMATES):  # again, because what is random changes where the next chunks begin
        pairs = draw_pairs(text, max_seq_length, short_seq_prob, min(num_passes, 100), rng, prob)
        share_single = (pairs.is_random_next.mean() - prob) / (1 - prob) if len(pairs.a_start) else 0.0
        prob = float(np.clip((0.5 - share_single) / (1 - min(share_single, 0.5)), 0.0, 0.5))
    return prob


def draw_pairs(
    text: TokenizedText,
    max_seq_length: int,
    short_seq_prob: float,
    num_passes: int,
    rng: np.random.Generator,
    random_prob: float = 0.5,
) -> Pairs:
    """Pairs from `num_passes` passes over each document, cut differently in each.

    [CLS] A [SEP] B [SEP] has at most max_seq_length tokens. random_prob: how often B is random where A does not take
    the only sentence of its chunk.
    """
    capacity = max_seq_length - NUM_SPECIAL_TOKENS
    document = np.tile(np.arange(text.num_documents), num_passes)
    is_short = rng.random(len(document)) < short_seq_prob
    target = np.where(is_short, rng.integers(2, capacity + 1, len(document)), capacity)
    sentence = text.document_starts[document]
    parts = []
    while len(document):
        pairs, sentence = _next_chunks(text, document, sentence, target, rng, random_prob)
        parts.append(_truncate(pairs, capacity, rng))
        has_more = sentence < text.document_starts[document + 1]
        document, target, sentence = document[has_more], target[has_more], sentence[has_more]
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts))) if parts else _NO_PAIRS


_NO_PAIRS = Pairs(*(np.zeros(0, np.int64) for _ in range(4)), np.zeros(0, bool))


def _next_chunks(
    text: TokenizedText,
    document: np.ndarray,
    first: np.ndarray,
    target: np.ndarray,
    rng: np.random.Generator,
    random_prob: float,
) -> tuple[Pairs, np.ndarray]:
    """A pair from each document's chunk that begins at sentence `first`, and the first sentence of the next chunk."""
    starts = text.sentence_starts
    end = _end_of_sentences(text, document, first, target)
    num_sentences = end - first
    cut = first + np.where(num_sentences > 1, rng.integers(1, np.maximum(num_sentences, 2)), 1)
    is_random_next = (num_sentences == 1) | (rng.random(len(document)) < random_prob)
    other = _other_documents(text.num_documents, document, rng)
    other_first = rng.integers(text.document_starts[other], text.document_starts[other + 1])
    b_target = target - (starts[cut] - starts[first])
    other_end = _end_of_sentences(text, other, other_first, np.maximum(b_target, 1))
    pairs = Pairs(
        starts[first],
        starts[cut],
        np.where(is_random_next, starts[other_first], starts[cut]),
        np.where(is_random_next, starts[other_end], starts[end]),
        is_random_next,
    )
    return pairs, np.where(is_random_next, cut, end)  # sentences that B did not use come again


def _end_of_sentences(
    text: TokenizedText, document: np.ndarray, first: np.ndarray, num_tokens: np.ndarray
) -> np.ndarray:
    """End of the shortest run of sentences from `first` that has num_tokens, or the end of the document."""
    end = np.searchsorted(text.sentence_starts, text.sentence_starts[first] + num_tokens)
    return np.minimum(end, text.document_starts[document + 1])


def _other_documents(num_documents: int, document: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    other = rng.integers(0, num_documents, len(document))
    for _ in range(_MAX_TRIES - 1):
        same = np.flatnonzero(other == document)
        if not len(same):
            break
        other[same] = rng.integers(0, num_documents, len(same))
    return other


def _truncate(pairs: Pairs, capacity: int, rng: np.random.Generator) -> Pairs:
    """Removes tokens one at a time from the longer of A and B (B if equal), each from the front or the back."""
    num_a, num_b = pairs.a_end - pairs.a_start, pairs.b_end - pairs.b_start
    excess = np.maximum(num_a + num_b - capacity, 0)
    # First the longer one alone until both are equal, then B and A in turn.
    alone = np.minimum(excess, np.abs(num_a - num_b))
    in_turn = excess - alone
    cut_a = np.where(num_a > num_b, alone, 0) + in_turn // 2
    cut_b = np.where(num_a > num_b, 0, alone) + in_turn - in_turn // 2
    front_a, front_b = rng.binomial(cut_a, 0.5), rng.binomial(cut_b, 0.5)
    return Pairs(
        pairs.a_start + front_a,
        pairs.a_end - (cut_a - front_a),
        pairs.b_start + front_b,
        pairs.b_end - (cut_b - front_b),
        pairs.is_random_next,
    )


class Instances(NamedTuple):
    """E sequences [CLS] A [SEP] B [SEP] before masking."""

    ids: np.ndarray  # [E, S] uint16 or int32 as in TokenizedText, 0 after the last token
    num_first: np.ndarray  # [E] int64, tokens of segment 0: [CLS] A [SEP]
    num_tokens: np.ndarray  # [E] int64
    is_random_next: np.ndarray  # [E] bool

    def choosable(self) -> np.ndarray:
        """[E, S] bool: tokens other than [CLS], [SEP] and padding."""
        choosable = np.arange(self.ids.shape[1]) < self.num_tokens[:, None] - 1
        choosable[:, 0] = False
        choosable[np.arange(len(choosable)), self.num_first - 1] = False
        return choosable


def assemble(text: TokenizedText, pairs: Pairs, max_seq_length: int, cls_id: int, sep_id: int) -> Instances:
    """[CLS] A [SEP] B [SEP] and padding for each pair."""
    num_a = pairs.a_end - pairs.a_start
    num_tokens = num_a + (pairs.b_end - pairs.b_start) + NUM_SPECIAL_TOKENS
    column = np.arange(max_seq_length)
    # A begins at column 1, B behind A and [SEP].
    a_rows = _windows(text.ids, pairs.a_start - 1, max_seq_length)
    b_rows = _windows(text.ids, pairs.b_start - num_a - 2, max_seq_length)
    ids = np.where(column > num_a[:, None] + 1, b_rows, a_rows)  # [E, S]
    ids *= column < num_tokens[:, None]  # padding is 0
    row = np.arange(len(ids))
    ids[:, 0] = cls_id
    ids[row, num_a + 1] = sep_id
    ids[row, num_tokens - 1] = sep_id
    return Instances(ids, num_a + 2, num_tokens, pairs.is_random_next)


def _windows(ids: np.ndarray, start: np.ndarray, size: int) -> np.ndarray:
    """ids[start : start + size] for each start [E]; outside of the array its first or last element."""
    is_inside = (start >= 0) & (start <= len(ids) - size)
    rows = np.empty((len(start), size), ids.dtype)
    if is_inside.any():
        windows = np.lib.stride_tricks.as_strided(ids, (len(ids) - size + 1, size), 2 * ids.strides, writeable=False)
        rows[is_inside] = windows[start[is_inside]]  # copies whole rows, which is faster than taking elements
    rows[~is_inside] = ids.take(start[~is_inside, None] + np.arange(size), mode="clip")
    return rows
