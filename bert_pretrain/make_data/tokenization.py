"""Text into token ids, with the same result as Google's FullTokenizer.

Google's tokenizer splits at spaces first, so the text between two spaces (here: a piece) always becomes the same
tokens. Each distinct piece is tokenized once and then looked up. Character classes come from Python's unicodedata, as
in Google's BasicTokenizer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import chain, compress, islice
from typing import Dict

import numpy as np
from tokenizers import Tokenizer, models

from bert_pretrain.data.vocab import Vocabulary

_MAX_WORD_CHARS = 200  # longer words are [UNK], as in google-research/bert
_MAX_CACHED_PIECES = 250_000  # before all but those of the latest lines are forgotten

# Code points that are words by themselves: the CJK ideograph blocks of google-research/bert's tokenization.py.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class _Cleaning(Dict[int, str]):
    """Code point -> its replacement before words are separated; filled on demand."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            replacement = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            replacement = ""
        elif any(first <= code <= last for first, last in _IDEOGRAPHS):
            replacement = f" {char} "
        else:
            replacement = char
        self[code] = replacement
        return replacement


class _Punctuation(Dict[int, str]):
    """Code point -> the character, with spaces around it where it is punctuation."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        is_symbol = code < 127 and char > " " and not char.isalnum()  # such as $ and ^, whose Unicode category is not P
        self[code] = f" {char} " if is_symbol or unicodedata.category(char).startswith("P") else char
        return self[code]


class _Accents(Dict[int, str]):
    """Code point -> the character, or nothing for a nonspacing mark."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = "" if unicodedata.category(char) == "Mn" else char
        return self[code]


_CLEANING, _PUNCTUATION, _ACCENTS = _Cleaning(), _Punctuation(), _Accents()


def split_words(pieces: Sequence[str], lower_case: bool) -> list[list[str]]:
    """The words of each piece, as BasicTokenizer gives them to WordPiece. A piece contains no space.

    Text is cleaned, punctuation and ideographs become words; with lower_case, lower case without accents.
    """
    is_plain = [piece.isascii() and piece.isprintable() for piece in pieces]
    plain = "\n".join(compress(pieces, is_plain))  # these need no cleaning and are translated in one call
    separated = iter((plain.lower() if lower_case else plain).translate(_PUNCTUATION).split("\n"))
    return [
        next(separated).split() if known else _split_any(piece, lower_case) for piece, known in zip(pieces, is_plain)
    ]


def _split_any(text: str, lower_case: bool) -> list[str]:
    words = text.translate(_CLEANING).split()
    if lower_case:  # word by word: the lower case of a capital sigma depends on whether it ends its word
        words = [unicodedata.normalize("NFD", word.lower()).translate(_ACCENTS) for word in words]
    return " ".join([word.translate(_PUNCTUATION) for word in words]).split()


class LineTokenizer:
    """Lines of text into token ids."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool) -> None:
        self.vocabulary = vocabulary
        self._lower_case = lower_case
        self._wordpiece = Tokenizer(
            models.WordPiece(vocabulary.numbered(), unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARS)
        )
        self._pieces, self._words = _Cache(), _Cache()

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all lines, int32 [T], and the number of tokens of each line, int64 [len(lines)].

        Lines contain no line feed.
        """
        rows = self._pieces.rows(" \n ".join(lines).split(" "))
        new_pieces = self._pieces.without_ids()
        if new_pieces:
            self._pieces.learn(*self._encode_pieces(new_pieces))
        ids, num_ids = self._pieces.ids(rows)
        line_feeds = np.flatnonzero(rows == self._pieces.get("\n", -1))
        if len(self._pieces) > _MAX_CACHED_PIECES:  # those of these lines are the most likely to come again
            self._pieces, self._words = self._pieces.only(np.unique(rows)), _Cache()
        assert len(line_feeds) == max(len(lines) - 1, 0)
        line_ends = np.append(np.cumsum(num_ids)[line_feeds], len(ids))[: len(lines)]
        return ids, np.diff(line_ends, prepend=0)

    def _encode_pieces(self, pieces: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all pieces in one array, and how many each piece has."""
        split = split_words(pieces, self._lower_case)
        rows = self._words.rows(list(chain.from_iterable(split)))
        new_words = self._words.without_ids()
        if new_words:
            encoded = [code.ids for code in self._wordpiece.encode_batch_fast(new_words, add_special_tokens=False)]
            self._words.learn(np.fromiter(chain.from_iterable(encoded), np.int32), np.array([*map(len, encoded)]))
        ids, num_ids = self._words.ids(rows)
        ends = np.append(0, np.cumsum(num_ids))[np.cumsum([*map(len, split)])]
        return ids, np.diff(ends, prepend=0)


class _Cache(Dict[str, int]):
    """Strings, numbered in the order of their first occurrence, and the token ids of each."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int32)
        self._starts = np.zeros(1, np.int64)

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number

    def rows(self, texts: list[str]) -> np.ndarray:
        """The number of each text. New texts get a number and must be learned next."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def without_ids(self) -> list[str]:
        """The texts that have a number but no ids yet."""
        return list(islice(self, len(self._starts) - 1, None))

    def learn(self, ids: np.ndarray, num_ids: np.ndarray) -> None:
        """Adds the ids of the texts without ids, in one array, and how many each text has."""
        self._starts = np.append(self._starts, self._starts[-1] + np.cumsum(num_ids))
        self._ids = np.append(self._ids, ids)

    def only(self, rows: np.ndarray) -> _Cache:
        """A cache of some of the texts, given by their numbers."""
        kept, texts = _Cache(), list(self)
        kept.update((texts[row], number) for number, row in enumerate(rows.tolist()))
        kept.learn(*self.ids(rows))
        return kept

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of numbered texts in one array, and how many each text has."""
        starts, num_ids = self._starts[rows], np.diff(self._starts)[rows]
        before = np.cumsum(num_ids) - num_ids
        return self._ids[np.repeat(starts - before, num_ids) + np.arange(num_ids.sum())], num_ids
