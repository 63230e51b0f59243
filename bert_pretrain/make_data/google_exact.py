"""The examples of google-research/bert's create_pretraining_data.py, number for number of Python's random.Random.

What the script draws, in which order, is the specification; here it is drawn on ranges of token ids instead of lists
of strings. Python's generator cannot be vectorized, so one example after the other is drawn; everything else is left
to NumPy when the records are written.

All examples are drawn before the first is written, since the script shuffles them at the end. In memory: 2 bytes a
token (4 while text is read), 16 a sentence, 29 an example, and about 150 MB besides; on disk, until the shard is
written: 6 bytes a masked token.
"""

from __future__ import annotations

import os
import random
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, MutableSequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data.instances import NUM_SPECIAL_TOKENS, Instances, Pairs, assemble
from bert_pretrain.make_data.masking import KEPT, Masking, MaskingRule, replace
from bert_pretrain.make_data.tokenized_text import TokenizedText
from bert_pretrain.worker_pool import Report

_EXAMPLES_AT_ONCE = 2048
_MAX_TOKENS = 2**32 - 1  # so that their numbers take four bytes
_MASKED = np.dtype([("column", "<u2"), ("replacement", "<i4")])


class ExactRule(NamedTuple):
    """The settings that decide what is drawn."""

    max_seq_length: int
    short_seq_prob: float
    dupe_factor: int
    random_seed: int
    masking: MaskingRule


class ExactExamples:
    """All examples of a text in the script's order; what was drawn for masking lies in a temporary file."""

    def __init__(self, text: TokenizedText, rule: ExactRule, spool_directory: str, report: Report) -> None:
        """Draws. A text without words is for the caller to refuse."""
        if len(text.ids) > _MAX_TOKENS:
            raise ValueError(f"{len(text.ids)} tokens are too many for one text in exact mode; give --num_shards")
        self._text, self._rule = text, rule
        rng = random.Random(rule.random_seed)
        documents = list(range(text.num_documents))
        _shuffle(documents, rng.getrandbits)
        self._drawn = _Drawn(spool_directory)
        drawer = _Drawer(text, rule, documents, rng, self._drawn)
        for _ in range(rule.dupe_factor):
            for position in range(len(documents)):
                drawer.draw_document(position)
            report(1 / rule.dupe_factor)
        self._drawn.finish()
        order = array("I", range(len(self._drawn)))
        _shuffle(order, rng.getrandbits)
        self._order = np.frombuffer(order, np.uint32)

    def __len__(self) -> int:
        return len(self._order)

    def pick(self, num_examples: int) -> None:
        """Leaves `num_examples` at equal distances, as MLPerf picks its evaluation set from the held-out articles."""
        if num_examples > len(self):
            raise ValueError(f"--num_picked_examples {num_examples}: the text makes only {len(self)} examples")
        distance = len(self) / num_examples
        self._order = self._order[[int(number * distance) for number in range(num_examples)]]

    def blocks(self, first: int, step: int, cls_id: int, sep_id: int) -> Iterator[tuple[Instances, Masking]]:
        """Examples first, first + step, ... in blocks."""
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


class _Drawn:
    """What was drawn: ranges of A and B in memory, columns and replacements of masked tokens on disk."""

    _ITEMS_IN_MEMORY = 1 << 20

    def __init__(self, spool_directory: str) -> None:
        self.a_start, self.a_end, self.b_start, self.b_end = (array("I") for _ in range(4))
        self.is_random_next = array("b")
        self.mask_ends = array("q", [0])
        self._columns, self._replacements = array("H"), array("i")
        self._spool = tempfile.TemporaryFile(dir=spool_directory)  # noqa: SIM115  vanishes with this object

    def __len__(self) -> int:
        return len(self.is_random_next)

    def add(self, pair: tuple[int, int, int, int, bool], columns: list[int], replacements: list[int]) -> None:
        a_start, a_end, b_start, b_end, is_random_next = pair
        self.a_start.append(a_start)
        self.a_end.append(a_end)
        self.b_start.append(b_start)
        self.b_end.append(b_end)
        self.is_random_next.append(is_random_next)
        self._columns.extend(columns)
        self._replacements.extend(replacements)
        self.mask_ends.append(self.mask_ends[-1] + len(columns))
        if len(self._columns) > self._ITEMS_IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        masked = np.empty(len(self._columns), _MASKED)
        masked["column"], masked["replacement"] = self._columns, self._replacements
        self._spool.write(masked.tobytes())
        del self._columns[:], self._replacements[:]

    def finish(self) -> None:
        """Makes what was added readable."""
        self._spill()
        self._spool.flush()

    def pairs(self, chosen: np.ndarray) -> Pairs:
        """The ranges of some examples."""
        columns = (self.a_start, self.a_end, self.b_start, self.b_end)
        ranges = (np.frombuffer(column, np.uint32)[chosen].astype(np.int64) for column in columns)
        return Pairs(*ranges, np.frombuffer(self.is_random_next, np.int8)[chosen].astype(bool))

    def masks(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns and replacements of some examples in a row, and how many belong to each."""
        ends = np.frombuffer(self.mask_ends, np.int64)
        starts, num_masked = ends[chosen], ends[chosen + 1] - ends[chosen]
        size, file = _MASKED.itemsize, self._spool.fileno()
        # Read, not mapped into memory, where it would count as used.
        parts = [os.pread(file, size * num, size * start) for start, num in zip(starts.tolist(), num_masked.tolist())]
        masked = np.frombuffer(b"".join(parts), _MASKED)
        return masked["column"], masked["replacement"], num_masked


class _Drawer:
    """Draws a document's examples as the script does."""

    def __init__(
        self, text: TokenizedText, rule: ExactRule, documents: list[int], rng: random.Random, drawn: _Drawn
    ) -> None:
        self._rule, self._documents, self._drawn = rule, documents, drawn
        self._ids, self._continues_word = text.ids, rule.masking.continues_word
        self._starts = array("q", text.sentence_starts.tobytes())
        self._document_starts = array("q", text.document_starts.tobytes())
        self._random, self._getrandbits = rng.random, rng.getrandbits

    def draw_document(self, position: int) -> None:
        """Adds the examples of the document that stands at `position` of the shuffled documents."""
        starts, rule = self._starts, self._rule
        capacity = target = rule.max_seq_length - NUM_SPECIAL_TOKENS
        if self._random() < rule.short_seq_prob:
            target = 2 + _below(capacity - 1, self._getrandbits)
        document = self._documents[position]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        while first < last:
            end = self._sentences_holding(first, last, target)
            cut = first + 1
            if end - first > 1:
                cut += _below(end - first - 1, self._getrandbits)
            is_random_next = end - first == 1 or self._random() < 0.5
            if is_random_next:
                b_start, b_end = self._elsewhere(position, target - (starts[cut] - starts[first]))
            else:
                b_start, b_end = starts[cut], starts[end]
            a_start, a_end, b_start, b_end = self._truncate(starts[first], starts[cut], b_start, b_end, capacity)
            columns, replacements = self._mask(a_start, a_end, b_start, b_end)
            self._drawn.add((a_start, a_end, b_start, b_end, is_random_next), columns, replacements)
            first = cut if is_random_next else end

    def _sentences_holding(self, first: int, last: int, num_tokens: int) -> int:
        """The end of the shortest run of sentences from `first` with `num_tokens`, or `last`."""
        return min(bisect_left(self._starts, self._starts[first] + num_tokens, first + 1, last + 1), last)

    def _elsewhere(self, position: int, num_tokens: int) -> tuple[int, int]:
        other = position
        for _ in range(10):
            other = _below(len(self._documents), self._getrandbits)
            if other != position:
                break
        document = self._documents[other]
        first, last = self._document_starts[document], self._document_starts[document + 1]
        first += _below(last - first, self._getrandbits)
        end = self._sentences_holding(first, last, max(num_tokens, 1))
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
        """Chosen columns in the order drawn, and what takes their place."""
        rule = self._rule.masking
        first_b = a_end - a_start + 2
        last = first_b + b_end - b_start
        wanted = min(rule.max_predictions_per_seq, max(1, round((last + 1) * rule.masked_lm_prob)))
        candidates: list = [*range(1, first_b - 1), *range(first_b, last)]
        if self._continues_word is None:
            _shuffle(candidates, self._getrandbits)
            columns = candidates[:wanted]
        else:
            words = self._words(candidates, a_start, a_end, b_start, b_end)
            _shuffle(words, self._getrandbits)
            columns = _words_that_fit(words, wanted)
        return columns, [self._replacement(rule) for _ in columns]

    def _words(self, columns: list[int], a_start: int, a_end: int, b_start: int, b_end: int) -> list[list[int]]:
        """The columns of each word. A ## piece at the beginning of a cut B goes with A's last word, as there."""
        ids = np.concatenate([self._ids[a_start:a_end], self._ids[b_start:b_end]])
        words: list[list[int]] = []
        for column, continues in zip(columns, self._continues_word[ids].tolist()):
            if continues and words:
                words[-1].append(column)
            else:
                words.append([column])
        return words

    def _replacement(self, rule: MaskingRule) -> int:
        if self._random() < 0.8:
            return rule.mask_id
        if self._random() < 0.5:
            return KEPT
        return _below(rule.vocab_size, self._getrandbits)


def _words_that_fit(words: list[list[int]], wanted: int) -> list[int]:
    columns: list[int] = []
    for word in words:
        if len(columns) >= wanted:
            break
        if len(columns) + len(word) <= wanted:
            columns.extend(word)
    return columns


def _below(limit: int, getrandbits: Callable[[int], int]) -> int:
    """What random.Random.randint(0, limit - 1) returns, from the same bits."""
    num_bits = limit.bit_length()
    drawn = getrandbits(num_bits)
    while drawn >= limit:
        drawn = getrandbits(num_bits)
    return drawn


def _shuffle(items: MutableSequence, getrandbits: Callable[[int], int]) -> None:
    """What random.Random.shuffle does, from the same bits, without its two calls for each item."""
    for limit in range(len(items), 1, -1):
        num_bits = limit.bit_length()
        drawn = getrandbits(num_bits)
        while drawn >= limit:
            drawn = getrandbits(num_bits)
        items[limit - 1], items[drawn] = items[drawn], items[limit - 1]
