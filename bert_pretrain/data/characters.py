"""Google's BasicTokenizer: text into words, by the character tables of this Python's unicodedata."""

from __future__ import annotations

import re
import unicodedata

# Code points that stand alone as words: the CJK ideograph blocks of google-research/bert's tokenization.py.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip

_ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
_PLAIN = re.compile(r"[!-~]*\Z")


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


def split_words(text: str, lower_case: bool) -> list[str]:
    """The words of `text` before WordPiece: cleaned, ideographs and punctuation apart, lower case without accents."""
    if _PLAIN.match(text):  # ASCII without space or control character: nothing to clean
        return _ASCII_WORD.findall(text.lower() if lower_case else text)
    words = text.translate(_CLEANING).split()
    if lower_case:  # word by word: what becomes of a capital sigma depends on where its word ends
        words = [unicodedata.normalize("NFD", word.lower()).translate(_ACCENTS) for word in words]
    return " ".join([word.translate(_PUNCTUATION) for word in words]).split()
