"""How often each word of a text occurs, in bounded memory.

Tasks, each for a part of the text, count independently in any number of processes, and their counts are added in the
order of the text. So the counts depend on the text and on the limit alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.task_progress import ReportProgress
from bert_pretrain.make_data.tokenization import split_words

_BYTES_IN_TASK = 32_000_000
_MAX_COUNTED_PIECES = 500_000  # between spaces, before they are divided into words; about 75 MB
_PIECES_AT_ONCE = 100_000  # that are divided


class WordCountTask(NamedTuple):
    """Text that is counted by one process."""

    span: corpus.Span
    lower_case: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of text."""
        return self.span.end - self.span.start


def tasks_for_counting(spans: Iterable[corpus.Span], lower_case: bool) -> list[WordCountTask]:
    """A task for each part of the text, which is cut between lines; the same for the same files."""
    return [WordCountTask(span, lower_case) for span in corpus.cut_between_lines(spans, _BYTES_IN_TASK)]


def count_words_of_task(task: WordCountTask, report: ReportProgress) -> tuple[list[str], np.ndarray]:
    """The distinct words of a task, in the order of their first occurrence, and how often each occurs [W] int64."""
    words = count_words(corpus.read_blocks(task.span), task.lower_case)
    return list(words), np.fromiter(words.values(), np.int64, len(words))


def count_words(texts: Iterable[str], lower_case: bool) -> Counter[str]:
    """How often each word occurs. A line feed ends a word."""
    words: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(text.replace("\n", " ").split(" "))
        if len(pieces) > _MAX_COUNTED_PIECES:
            _add_words(words, pieces, lower_case)
            pieces.clear()
    _add_words(words, pieces, lower_case)
    return words


def _add_words(words: Counter[str], pieces: Counter[str], lower_case: bool) -> None:
    counted = iter(pieces.items())
    while some := list(islice(counted, _PIECES_AT_ONCE)):
        for (_, count), found in zip(some, split_words([piece for piece, _ in some], lower_case)):
            for word in found:
                words[word] += count


class WordCounts:
    """Counts of at most max_words distinct words.

    Where there are more, the rarest are dropped (https://dl.acm.org/doi/10.5555/1287369.1287400, lossy counting), and
    a count may be too small by at most `max_missed`.
    """

    def __init__(self, max_words: int) -> None:
        assert max_words >= 2
        self.counts: dict[str, int] = {}
        self.max_missed = 0
        self._max_words = max_words

    def add(self, words: Iterable[str], counts: Iterable[int]) -> None:
        """Adds the counts of some words."""
        known = self.counts
        for word, count in zip(words, counts):
            known[word] = known.get(word, 0) + count
            if len(known) > self._max_words:
                known = self.counts = self._most_frequent()

    def _most_frequent(self) -> dict[str, int]:
        """At most half as many as are allowed, so that the next call is far."""
        by_count = np.sort(np.fromiter(self.counts.values(), np.int64, len(self.counts)))
        largest_dropped = int(by_count[-(self._max_words // 2) - 1])
        self.max_missed += largest_dropped
        return {word: count for word, count in self.counts.items() if count > largest_dropped}
