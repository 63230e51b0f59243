"""Fast mode: the examples of a text, drawn for many at a time with NumPy.

The procedure is that of google-research/bert's create_pretraining_data.py: fill a chunk with sentences up to a target
length, cut it at random into A and B, and half of the time replace B by text from another document. Many documents are
processed in step, one chunk of each at a time, and random numbers are drawn for all of them together. With
--single_sequence there is no B, and the chunks follow each other (cut_single_sequences).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from crc32c import crc32c

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.masking import Masking, MaskingRule, mask_tokens
from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data.shards.instances import (
    EXAMPLES_AT_ONCE,
    NUM_SPECIAL_TOKENS,
    NUM_SPECIAL_TOKENS_OF_SINGLE,
    Instances,
    Pairs,
    TokenizedText,
    assemble,
)

_NUM_ESTIMATES, _MIN_ESTIMATED_TOKENS = 3, 2_000_000  # of the share of pairs that are random in any case
_MAX_TRIES = 10  # to find another document for B; after them B may come from the same document
_NO_PAIRS = Pairs(*(np.zeros(0, dtype) for dtype in (*[np.int64] * 4, bool)))
_MANY_TOKENS = 32  # masked and not masked: C(64, 32) = 1.8 * 10**18 choices


def draw_examples(
    text: TokenizedText, config: ExampleConfig, vocabulary: Vocabulary, rng: np.random.Generator
) -> Iterator[tuple[Instances, Masking]]:
    """Draws the examples of a text; returns them in random order, in blocks."""
    cut = (config.max_seq_length, config.short_seq_prob)
    if config.single_sequence:
        pairs = cut_single_sequences(text, *cut, config.dupe_factor, rng)
    else:
        pairs = draw_pairs(text, *cut, config.dupe_factor, rng, balanced_random_prob(text, *cut))
    order = rng.permutation(len(pairs.a_start))
    rule, cls_id, sep_id = (
        MaskingRule.of(config, vocabulary, config.max_predictions_per_seq),
        vocabulary.id("[CLS]"),
        vocabulary.id("[SEP]"),
    )
    for start in range(0, len(order), EXAMPLES_AT_ONCE):
        chosen = Pairs(*(column[order[start : start + EXAMPLES_AT_ONCE]] for column in pairs))
        instances = assemble(text, chosen, config.max_seq_length, cls_id, sep_id)
        yield instances, mask_tokens(instances, rule, rng)


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
    target = _draw_targets(len(document), capacity, short_seq_prob, rng)
    sentence = text.document_starts[document]
    parts = [_NO_PAIRS]
    while len(document):
        pairs, sentence = _next_chunks(text, document, sentence, target, rng, random_prob)
        parts.append(_truncate(pairs, capacity, rng))
        has_more = sentence < text.document_starts[document + 1]
        document, target, sentence = document[has_more], target[has_more], sentence[has_more]
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts)))


def cut_single_sequences(
    text: TokenizedText, max_seq_length: int, short_seq_prob: float, num_passes: int, rng: np.random.Generator
) -> Pairs:
    """Single sequences from `num_passes` passes over each document, as pairs whose B is empty.

    These are the DOC-SENTENCES of RoBERTa (Liu et al. 2019, arXiv:1907.11692). A sequence holds consecutive sentences
    of one document, as many as fit, and the next one begins with the sentence that did not. It ends with its document:
    what follows a document's end is padding, which packing (data/packing.py) fills with other examples. A sentence that
    alone is too long for a sequence is cut into pieces that fill one each, and a rest that more sentences may follow.
    So each pass holds every token once, in order.

    [CLS] A [SEP] has at most max_seq_length tokens. The sequences of a short pass end at a smaller number, drawn for
    the pass, but each holds a whole sentence, or a piece of one, at least.
    """
    capacity = max_seq_length - NUM_SPECIAL_TOKENS_OF_SINGLE
    text = _cut_long_sentences(text, capacity)
    starts = text.sentence_starts
    document = np.tile(np.arange(text.num_documents), num_passes)
    target = _draw_targets(len(document), capacity, short_seq_prob, rng)
    first = text.document_starts[document]
    parts = [_NO_PAIRS]
    while len(document):
        fitting = np.searchsorted(starts, starts[first] + target, side="right") - 1
        last = text.document_starts[document + 1]
        end = np.clip(fitting, first + 1, last)
        a_end = starts[end]
        parts.append(Pairs(starts[first], a_end, a_end, a_end, np.zeros(len(end), bool)))
        has_more = end < last
        document, target, first = document[has_more], target[has_more], end[has_more]
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts)))


def _draw_targets(num_passes: int, capacity: int, short_seq_prob: float, rng: np.random.Generator) -> np.ndarray:
    """How many tokens of text the sequences of each pass over a document have: [num_passes], capacity at most."""
    is_short = rng.random(num_passes) < short_seq_prob
    return np.where(is_short, rng.integers(2, capacity + 1, num_passes), capacity)


def _cut_long_sentences(text: TokenizedText, capacity: int) -> TokenizedText:
    """The text with sentences of at most `capacity` tokens: longer ones are cut into pieces of that length."""
    num_pieces = -(-np.diff(text.sentence_starts) // capacity)
    first_pieces = np.append(0, np.cumsum(num_pieces))
    piece = np.arange(first_pieces[-1]) - np.repeat(first_pieces[:-1], num_pieces)  # its number within its sentence
    starts = np.repeat(text.sentence_starts[:-1], num_pieces) + capacity * piece
    return TokenizedText(text.ids, np.append(starts, text.sentence_starts[-1]), first_pieces[text.document_starts])


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


def pick_records(records: Iterable[bytes], count: int) -> Iterable[bytes]:
    """At most `count` of the records, at equal distances, for which all are kept in memory; all of them if 0."""
    if not count:
        return records
    everything = list(records)
    return [everything[number] for number in picked_numbers(len(everything), count)]


def picked_numbers(num_records: int, count: int) -> list[int]:
    """Which of so many records pick_records keeps."""
    distance = max(1.0, num_records / count) if count else 1.0
    return [int(number * distance) for number in range(min(count or num_records, num_records))]


class RepeatedRecords:
    """Leaves out records that equal an earlier one of a block of text.

    Ten passes cut and mask a short document in the same way now and then: of two sentences of six tokens, two tokens
    are masked, and there are 66 pairs of them. Of 60 tokens, nine are masked, and there are 10**10 choices. Records
    with more than 10**18 choices are not compared. A record is known by two different CRCs of 32 bits, which take about
    70 bytes.
    """

    def __init__(self) -> None:
        self.num_kept = self.num_left_out = 0
        self._seen: set[int] = set()

    def begin_block(self) -> None:
        """Forgets the records so far: those of other documents are others."""
        self._seen.clear()

    def find_new(self, records: Iterable[bytes], may_repeat: Iterable[bool]) -> list[bool]:
        """Which records did not occur in this block before, or cannot repeat."""
        seen, is_new = self._seen, []
        for record, is_compared in zip(records, may_repeat):
            key = crc32c(record) << 32 | zlib.crc32(record) if is_compared else None
            is_new.append(key not in seen)
            if key is not None:
                seen.add(key)
        self.num_kept += sum(is_new)
        self.num_left_out += len(is_new) - sum(is_new)
        return is_new


def may_repeat(instances: Instances, masking: Masking) -> list[bool]:
    """Whether each of E examples has so few choices of masks that another pass may have made the same."""
    num_others = instances.num_tokens - masking.num_masked
    return (np.minimum(masking.num_masked, num_others) < _MANY_TOKENS).tolist()
