"""Exact mode: the examples of google-research/bert's create_pretraining_data.py, with the same draws of random.Random.

The script's draws and their order are the specification. Here they choose ranges of token ids instead of lists of
strings. Python's generator cannot be vectorized, so examples are drawn one after the other; NumPy does the rest when
the records are written.

All examples are drawn before the first is written, because the script shuffles them at the end. Memory: 2 bytes a
token, 16 a sentence, what drawn_examples.py says, and the tokenizer's cache.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, MutableSequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.masking import KEPT, Masking, MaskingRule, replace
from bert_pretrain.make_data.drawn_examples import DrawnExamples
from bert_pretrain.make_data.instances import NUM_SPECIAL_TOKENS, Instances, assemble
from bert_pretrain.make_data.task_progress import Done
from bert_pretrain.make_data.tokenized_text import TokenizedText
from bert_pretrain.worker_pool import Report

_EXAMPLES_AT_ONCE = 256  # so that they stay in the processor's cache
_DOCUMENTS_AT_ONCE = 4096  # between reports
_MAX_TOKENS = 2**32 - 1  # so that their numbers take four bytes


class ExactRule(NamedTuple):
    """The settings that the draws depend on."""

    max_seq_length: int
    short_seq_prob: float
    dupe_factor: int
    random_seed: int
    masking: MaskingRule


class ExactExamples:
    """All examples of a text in the script's order."""

    def __init__(self, text: TokenizedText, rule: ExactRule, spool_directory: str, report: Report) -> None:
        """Draws all examples. The text must have at least two tokens."""
        if len(text.ids) > _MAX_TOKENS:
            raise ValueError(f"{len(text.ids)} tokens are too many for one text in exact mode; give --num_shards")
        self._text, self._rule = text, rule
        rng = random.Random(rule.random_seed)
        documents = list(range(text.num_documents))
        _shuffle(documents, rng.getrandbits, len(documents))
        self._drawn = DrawnExamples(spool_directory)
        drawer = _Drawer(text, rule, documents, rng, self._drawn)
        for _ in range(rule.dupe_factor):
            for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
                positions = range(start, min(start + _DOCUMENTS_AT_ONCE, len(documents)))
                num_before = len(self._drawn)
                for position in positions:
                    drawer.draw_document(position)
                share = len(positions) / (rule.dupe_factor * len(documents))
                report(Done(share, len(self._drawn) - num_before))
        self._drawn.finish()
        order = array("I", range(len(self._drawn)))
        _shuffle(order, rng.getrandbits, len(order))
        self._order = np.frombuffer(order, np.uint32)

    def __len__(self) -> int:
        return len(self._order)

    def pick(self, num_examples: int) -> None:
        """Keeps num_examples at equal distances, as MLPerf picks its evaluation set from the held-out articles."""
        assert num_examples <= len(self), num_examples
        distance = len(self) / num_examples
        self._order = self._order[[int(number * distance) for number in range(num_examples)]]

    def blocks(self, first: int, step: int, cls_id: int, sep_id: int) -> Iterator[tuple[Instances, Masking]]:
        """Examples first, first + step, first + 2 step, ... in blocks."""
        order = self._order[first::step]
        for start in range(0, len(order), _EXAMPLES_AT_ONCE):
            chosen = order[start : start + _EXAMPLES_AT_ONCE].astype(np.int64)
            instances = assemble(self._text, self._drawn.pairs(chosen), self._rule.max_seq_length, cls_id, sep_id)
            yield instances, self._mask(instances, chosen)

    def _mask(self, instances: Instances, chosen: np.ndarray) -> Masking:
        columns, replacements, num_masked = self._drawn.masks(chosen)
        shape = len(chosen), self._rule.masking.max_predictions_per_seq
        used = np.arange(shape[1]) < num_masked[:, None]
        column_matrix, replacement_matrix = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        column_matrix[used], replacement_matrix[used] = columns, replacements
        return replace(instances, column_matrix, num_masked, replacement_matrix)


class _Drawer:
    """Draws a document's examples as the script does."""

    def __init__(
        self, text: TokenizedText, rule: ExactRule, documents: list[int], rng: random.Random, drawn: DrawnExamples
    ) -> None:
        self._rule, self._documents, self._drawn = rule, documents, drawn
        self._ids, self._continues_word = text.ids, rule.masking.continues_word
        self._starts = array("q", text.sentence_starts.tobytes())
        self._document_starts = array("q", text.document_starts.tobytes())
        self._random, self._getrandbits = rng.random, rng.getrandbits

    def draw_document(self, position: int) -> None:
        """Adds the examples of the document at `position` of the shuffled documents."""
        starts, rule = self._starts, self._rule
        capacity = target = rule.max_seq_length - NUM_SPECIAL_TOKENS
        if self._random() < rule.short_seq_prob:
            target = 2 + _below(capacity - 1, self._getrandbits)
        document = self._documents[position]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        while first < last:
            end = self._end_of_sentences(first, last, target)
            cut = first + 1
            if end - first > 1:
                cut += _below(end - first - 1, self._getrandbits)
            is_random_next = end - first == 1 or self._random() < 0.5
            if is_random_next:
                b_start, b_end = self._random_next(position, target - (starts[cut] - starts[first]))
            else:
                b_start, b_end = starts[cut], starts[end]
            a_start, a_end, b_start, b_end = self._truncate(starts[first], starts[cut], b_start, b_end, capacity)
            columns, replacements = self._mask(a_start, a_end, b_start, b_end)
            self._drawn.add((a_start, a_end, b_start, b_end, is_random_next), columns, replacements)
            first = cut if is_random_next else end

    def _end_of_sentences(self, first: int, last: int, num_tokens: int) -> int:
        """End of the shortest run of sentences from `first` that has num_tokens, or `last`."""
        return min(bisect_left(self._starts, self._starts[first] + num_tokens, first + 1, last + 1), last)

    def _random_next(self, position: int, num_tokens: int) -> tuple[int, int]:
        other = position
        for _ in range(10):
            other = _below(len(self._documents), self._getrandbits)
            if other != position:
                break
        document = self._documents[other]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        first += _below(last - first, self._getrandbits)
        end = self._end_of_sentences(first, last, max(num_tokens, 1))
        return self._starts[first], self._starts[end]

    def _truncate(self, a_start: int, a_end: int, b_start: int, b_end: int, capacity: int) -> tuple[int, int, int, int]:
        draw = self._random
        num_a, num_b = a_end - a_start, b_end - b_start
        for _ in range(num_a + num_b - capacity):
            at_front = draw() < 0.5
            if num_a > num_b:
                num_a -= 1
                a_start += at_front
            else:
                num_b -= 1
                b_start += at_front
        return a_start, a_start + num_a, b_start, b_start + num_b

    def _mask(self, a_start: int, a_end: int, b_start: int, b_end: int) -> tuple[list[int], list[int]]:
        """Masked columns in the order drawn, and their replacements."""
        rule = self._rule.masking
        first_b = a_end - a_start + 2
        last = first_b + b_end - b_start
        wanted = min(rule.max_predictions_per_seq, max(1, round((last + 1) * rule.masked_lm_prob)))
        candidates: list = [*range(1, first_b - 1), *range(first_b, last)]
        if self._continues_word is None:
            _shuffle(candidates, self._getrandbits, wanted)
            columns = candidates[:wanted]
        else:
            words = self._words(candidates, a_start, a_end, b_start, b_end)
            _shuffle(words, self._getrandbits, len(words))
            columns = _words_that_fit(words, wanted)
        return columns, self._draw_replacements(len(columns))

    def _words(self, columns: list[int], a_start: int, a_end: int, b_start: int, b_end: int) -> list[list[int]]:
        """The columns of each word. As in the script, a ## piece at the start of a cut B belongs to A's last word."""
        ids = np.concatenate([self._ids[a_start:a_end], self._ids[b_start:b_end]])
        words: list[list[int]] = []
        for column, continues in zip(columns, self._continues_word[ids].tolist()):
            if continues and words:
                words[-1].append(column)
            else:
                words.append([column])
        return words

    def _draw_replacements(self, count: int) -> list[int]:
        draw, rule = self._random, self._rule.masking
        replacements = [rule.mask_id] * count
        for number in range(count):
            if draw() >= 0.8:
                replacements[number] = KEPT if draw() < 0.5 else self._any_token()
        return replacements

    def _any_token(self) -> int:
        entries = self._rule.masking.replacements
        return entries[_below(len(entries), self._getrandbits)]


def _words_that_fit(words: list[list[int]], wanted: int) -> list[int]:
    columns: list[int] = []
    for word in words:
        if len(columns) >= wanted:
            break
        if len(columns) + len(word) <= wanted:
            columns.extend(word)
    return columns


def _below(limit: int, getrandbits: Callable[[int], int]) -> int:
    """The result of random.Random.randint(0, limit - 1), from the same bits."""
    num_bits = limit.bit_length()
    drawn = getrandbits(num_bits)
    while drawn >= limit:
        drawn = getrandbits(num_bits)
    return drawn


def _shuffle(items: MutableSequence, getrandbits: Callable[[int], int], num_used: int) -> None:
    """The result of random.Random.shuffle, from the same bits, without its two function calls per item.

    Only the first num_used items are valid then: what belongs behind them is not used again.
    """
    end = len(items)
    while end > 1:
        num_bits = end.bit_length()
        least = max(1, (1 << num_bits - 1) - 1)  # down to here a limit, last + 1, has as many bits
        if end > num_used:
            least = max(least, num_used)
            for last in range(end - 1, least - 1, -1):
                while (drawn := getrandbits(num_bits)) > last:
                    pass
                items[drawn] = items[last]
        else:
            for last in range(end - 1, least - 1, -1):
                while (drawn := getrandbits(num_bits)) > last:
                    pass
                items[drawn], items[last] = items[last], items[drawn]
        end = least
