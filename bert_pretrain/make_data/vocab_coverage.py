"""How well a vocabulary covers a text: [UNK] and pieces a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.word_counts import count_words

_HELD_OUT_PERCENT = 1
_MIN_HELD_OUT_BYTES = 10_000  # of less text, shares say little
_MAX_READ_BYTES = 20_000_000
_WORDS_AT_ONCE = 100_000


class Coverage(NamedTuple):
    """What a text's words become."""

    words: int
    pieces: int
    unknown_words: int  # that become [UNK]

    def __str__(self) -> str:
        words = max(self.words, 1)
        return (
            f"{self.pieces / words:.3f} pieces a word, {100 * self.unknown_words / words:.4f} % of the words [UNK], "
            f"{self.words} words"
        )


def hold_out(spans: Sequence[corpus.Span]) -> tuple[list[corpus.Span], list[corpus.Span]]:
    """The text, and its last documents, about 1 % of it, by themselves; none where that is too little text."""
    num_bytes = sum(span.end - span.start for span in spans) * _HELD_OUT_PERCENT // 100
    if num_bytes < _MIN_HELD_OUT_BYTES:
        return list(spans), []
    return corpus.split_end(spans, num_bytes)


def measure(spans: Sequence[corpus.Span], vocabulary: Vocabulary, lower_case: bool) -> Coverage:
    """The coverage of the text, or of its first 20 MB."""
    words = count_words(corpus.read_blocks_of(spans, _MAX_READ_BYTES), lower_case)
    tokenizer = LineTokenizer(vocabulary, lower_case)
    distinct, unknown_id = list(words), vocabulary.id("[UNK]")
    total = Coverage(sum(words.values()), 0, 0)
    for start in range(0, len(distinct), _WORDS_AT_ONCE):
        some = distinct[start : start + _WORDS_AT_ONCE]
        counts = np.array([words[word] for word in some], np.int64)
        ids, num_pieces = tokenizer.encode(some)
        word = np.repeat(np.arange(len(some)), num_pieces)[ids == unknown_id]  # a word has one [UNK] at most
        total = Coverage(
            total.words, total.pieces + int(counts @ num_pieces), total.unknown_words + int(counts[word].sum())
        )
    return total
