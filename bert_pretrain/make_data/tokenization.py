"""Text into token ids, with the same result as Google's FullTokenizer.

Google's tokenizer cuts at spaces before anything else, so that what stands between two spaces (here: a piece) always
becomes the same tokens. Each different piece is tokenized once and looked up from then on. Character classes come from
this Python's unicodedata, as in Google's BasicTokenizer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import chain, compress, islice

import numpy as np
from tokenizers import Tokenizer, models

from bert_pretrain.data.vocab import Vocabulary

_MAX_WORD_CHARS = 200  # longer words are [UNK], as in google-research/bert
_MAX_CACHED_PIECES = 1_000_000  # about 300 MB

# Code points that stand alone as words: the CJK ideograph blocks of google-research/bert's tokenization.py.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class _Cleaning(dict):
    """Code point -> what takes its place before words are separated; filled as code points are met."""

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


class _Punctuation(dict):
    """Code point -> the character, with spaces around it where it is punctuation."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        symbol = code < 127 and char > " " and not char.isalnum()  # as $ and ^, which Unicode has outside P
        self[code] = f" {char} " if symbol or unicodedata.category(char).startswith("P") else char
        return self[code]


class _Accents(dict):
    """Code point -> the character, or nothing for a nonspacing mark."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = "" if unicodedata.category(char) == "Mn" else char
        return self[code]


_CLEANING, _PUNCTUATION, _ACCENTS = _Cleaning(), _Punctuation(), _Accents()


def split_words(pieces: Sequence[str], lower_case: bool) -> list[list[str]]:
    """The words of each piece before WordPiece: cleaned, punctuation and ideographs apart, lower case without accents.

    A piece has no space in it.
    """
    is_plain = [piece.isascii() and piece.isprintable() for piece in pieces]
    plain = "\n".join(compress(pieces, is_plain))  # these need no cleaning, and go through in one call
    separated = iter((plain.lower() if lower_case else plain).translate(_PUNCTUATION).split("\n"))
    return [
        next(separated).split() if known else _split_any(piece, lower_case) for piece, known in zip(pieces, is_plain)
    ]


def _split_any(text: str, lower_case: bool) -> list[str]:
    words = text.translate(_CLEANING).split()
    if lower_case:  # word by word: what becomes of a capital sigma depends on where its word ends
        words = [unicodedata.normalize("NFD", word.lower()).translate(_ACCENTS) for word in words]
    return " ".join([word.translate(_PUNCTUATION) for word in words]).split()


class LineTokenizer:
    """Lines of text into token ids."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool):
        self.vocabulary = vocabulary
        self._lower_case = lower_case
        numbered = {entry: number for number, entry in enumerate(vocabulary.entries)}
        self._wordpiece = Tokenizer(
            models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARS)
        )
        self._forget()

    def _forget(self) -> None:
        self._pieces, self._words = _Known(), _Known()

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all lines in a row, int32 [T], and the number of tokens of each line, int64 [len(lines)].

        A line has no line feed in it.
        """
        if len(self._pieces) > _MAX_CACHED_PIECES:
            self._forget()
        rows = self._pieces.rows(" \n ".join(lines).split(" "))
        new_pieces = self._pieces.without_ids()
        if new_pieces:
            self._pieces.learn(*self._encode_pieces(new_pieces))
        ids, num_ids = self._pieces.ids(rows)
        line_feeds = np.flatnonzero(rows == self._pieces.get("\n", -1))
        assert len(line_feeds) == max(len(lines) - 1, 0)
        line_ends = np.append(np.cumsum(num_ids)[line_feeds], len(ids))[: len(lines)]
        return ids, np.diff(line_ends, prepend=0)

    def _encode_pieces(self, pieces: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all pieces in a row, and how many belong to each."""
        split = split_words(pieces, self._lower_case)
        rows = self._words.rows(list(chain.from_iterable(split)))
        new_words = self._words.without_ids()
        if new_words:
            encoded = [code.ids for code in self._wordpiece.encode_batch_fast(new_words, add_special_tokens=False)]
            self._words.learn(np.fromiter(chain.from_iterable(encoded), np.int32), np.array([*map(len, encoded)]))
        ids, num_ids = self._words.ids(rows)
        ends = np.append(0, np.cumsum(num_ids))[np.cumsum([*map(len, split)])]
        return ids, np.diff(ends, prepend=0)


class _Known(dict):
    """Strings, numbered as they come, and the token ids of each."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int32)
        self._starts = np.zeros(1, np.int64)

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number

    def rows(self, texts: list[str]) -> np.ndarray:
        """The number of each text; new ones are numbered, and must be learned next."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def without_ids(self) -> list[str]:
        """The texts that were numbered but not learned."""
        return list(islice(self, len(self._starts) - 1, None))

    def learn(self, ids: np.ndarray, num_ids: np.ndarray) -> None:
        """Takes the ids of the texts without, in a row, and how many belong to each."""
        self._starts = np.append(self._starts, self._starts[-1] + np.cumsum(num_ids))
        self._ids = np.append(self._ids, ids)

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of numbered texts in a row, and how many belong to each."""
        starts, num_ids = self._starts[rows], np.diff(self._starts)[rows]
        before = np.cumsum(num_ids) - num_ids
        return self._ids[np.repeat(starts - before, num_ids) + np.arange(num_ids.sum())], num_ids
