"""The encoding of a raw file: told by its bytes, by --encoding, by the letters of --language, or by chardet."""

from __future__ import annotations

import codecs
import itertools
import re
from typing import IO, NamedTuple, Optional

from bert_pretrain.config.languages import find_language
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.raw_text.decoding import decompressed, need
from bert_pretrain.make_data.raw_text.sources import Source

_HEAD = 1 << 20  # bytes that are looked at
_MAX_ASCII = 64  # such parts that are searched for the first byte beyond ASCII
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_MAX_CONTROL_SHARE = 0.01  # of the bytes of a text
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_MAX_DAMAGED_SHARE = 0.001  # of the characters of a text in UTF-8 with damaged places
_MIN_UTF16_SHARE = 0.3  # of zeros at even, or at odd places, in UTF-16 without a mark
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_UNUSED = re.compile(r"[\x80-\x9f]")  # control characters, in no text
_UNDECODED = -9  # plausibility of what is not of the encoding: a few damaged places in a long text decide nothing
_MAX_LOOKED_AT = 20_000  # characters beyond ASCII
_MARKS = frozenset("„“”‚‘’«»‹›–—…\xa0、。，．：；？！・ー「」『』（）《》【】")  # of any language's text
_FIRST_OF_OTHER_SCRIPTS = "\u0370"  # Greek and all after it
_MIN_SCORE = 0.5  # for an encoding of the language; other text than the language's has less


class NotTextError(Exception):
    """The file is binary."""


class Encoding(NamedTuple):
    """Python's name of an encoding, and what it was chosen by."""

    name: str
    chosen_by: str = "its bytes"


def find_encoding(source: Source, settings: TextConfig) -> Encoding:
    """A file's encoding, also for a piece of it. NotTextError for binary content.

    UTF-8, UTF-16 and UTF-32 are told by the bytes. Other text has --encoding; where that is auto, the encoding in which
    it has the letters of --language, else what chardet says.
    """
    with decompressed(source.whole()) as stream:
        head = stream.read(_HEAD)
        telling = _first_beyond_ascii(head, stream)
    for bom, name in _BOMS:
        if head.startswith(bom):
            return Encoding(name)
    if b"\0" in head:
        return Encoding(_utf16_without_mark(head))
    if len(head.translate(None, _CONTROLS)) < (1 - _MAX_CONTROL_SHARE) * len(head):
        raise NotTextError
    if b"\x1b$" in head and head.isascii():  # Japanese, Chinese or Korean in seven bits
        return Encoding(_detected(head), "chardet")
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(telling)
    num_damaged = text.count("\ufffd") - telling.count("\ufffd".encode())
    if num_damaged <= 0 or (num_damaged < _MAX_DAMAGED_SHARE * len(text) and _is_mostly_utf8(text)):
        return Encoding("utf-8")
    if settings.encoding != "auto":
        return Encoding(settings.encoding, "--encoding")
    name = _by_language(telling, settings.language)
    return Encoding(name, f"--language={settings.language}") if name else Encoding(_detected(telling), "chardet")


def _first_beyond_ascii(head: bytes, stream: IO[bytes]) -> bytes:
    """The first part of a text that has a byte beyond ASCII; head, which comes before the stream, where none has."""
    parts = itertools.chain([head], iter(lambda: stream.read(_HEAD), b""))
    return next((part for part in itertools.islice(parts, _MAX_ASCII) if not part.isascii()), head)


def _is_mostly_utf8(text: str) -> bool:
    """Whether more characters beyond ASCII are whole than are damaged."""
    num_beyond = len(text) - len(text.encode("ascii", "ignore"))
    return num_beyond > 2 * text.count("\ufffd")


def _utf16_without_mark(head: bytes) -> str:
    for name, places in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if places.count(0) > _MIN_UTF16_SHARE * len(places) and places.count(0) > 0.9 * head.count(0):
            return name
    raise NotTextError


def _by_language(head: bytes, code: str) -> Optional[str]:
    """The encoding of the language in which the text looks most like it; None where it does in none."""
    language = find_language(code)
    assert language, code
    best, best_score = None, _MIN_SCORE
    for name in language.encodings:
        score = _score(head.decode(name, "replace"), language.letters)
        if score > best_score:
            best, best_score = name, score
    return best


def _score(text: str, letters: str) -> float:
    """How much the characters beyond ASCII look like those of a language, 1 at most.

    A wrong encoding gives signs and foreign letters, or capital letters within words, as KOI8-R read as Windows-1251.
    """
    known = frozenset(letters) | frozenset(letters.upper())
    text = " " + text
    places = [match.start() for match in itertools.islice(_BEYOND_ASCII.finditer(text), _MAX_LOOKED_AT)]
    return sum(_plausibility(text[place - 1], text[place], known) for place in places) / len(places)


def _plausibility(before: str, char: str, known: frozenset[str]) -> int:
    if char in _MARKS:
        return 1
    if char == "\ufffd":
        return _UNDECODED
    if _UNUSED.match(char):
        return -1
    if not char.isalpha():
        return -1 if before.isalpha() else 0
    if char >= _FIRST_OF_OTHER_SCRIPTS and before.isascii() and before.isalpha():
        return -1 if char.isupper() or char.islower() else 0
    if char.isupper() and before.isalpha():
        return 0 if before.isupper() else -1
    return int(char in known)


def _detected(head: bytes) -> str:
    chardet = need("chardet", "text that is not UTF-8")
    first = re.search(rb"[\x80-\xff]", head)
    start = max(0, first.start() - _HEAD // 16) if first else 0
    # Renamed: the encoding that contains the found one and is used for it, as Windows-1252 for ISO 8859-1.
    found = chardet.detect(head[start : start + _HEAD // 8], should_rename_legacy=True)["encoding"]
    if found is None:
        raise NotTextError
    return codecs.lookup(found).name


def is_cut_at_line_feeds(encoding: str) -> bool:
    """Whether the byte 10 is a line feed, wherever it stands, and what follows it can be decoded alone."""
    is_of_bytes = len("\n<".encode(encoding)) == len("\n".encode(encoding)) + 1
    return is_of_bytes and not encoding.startswith(("iso2022", "hz", "utf_7", "utf-7"))
