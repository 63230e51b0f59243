"""Google's BasicTokenizer: text into words, by the character tables of this Python's unicodedata."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import compress

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
