"""Raw files: which there are, in which encoding each is, and its bytes as lines of text.

An encoding is told by the bytes, by --encoding, by the letters of --language, or by chardet.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import importlib
import io
import itertools
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, Optional

from bert_pretrain.config.languages import find_language
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.system.files import match_names, open_regular

_FORMS = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "rst", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 17  # bytes that are read at once
_ZSTD_CHUNK = 1 << 12  # compressed bytes; all that they become is in memory at once
# A file that becomes more than so many times its size is no text; a small one may.
_MAX_RATIO, _MIN_OF_RATIO = 200, 32 << 20
MAX_LINE = 64 << 20  # characters; a longer line is read in parts of as many, and a shorter last one

# What tells an encoding.
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
_MAX_LOOKED_AT = 20_000  # characters beyond ASCII that are looked at
_MARKS = frozenset("„“”‚‘’«»‹›–—…\xa0、。，．：；？！・ー「」『』（）《》【】")  # of any language's text
_FIRST_OF_OTHER_SCRIPTS = "\u0370"  # Greek and all after it
_MIN_SCORE = 0.5  # for an encoding of the language; other text than the language's has less


class TextSource(NamedTuple):
    """A file of raw text, or a piece of one."""

    path: str
    form: str  # one of _FORMS' values
    compression: str  # one of _COMPRESSIONS, or nothing
    num_bytes: int
    start: int = 0  # of a piece: its first byte; of a Parquet file its first row group
    end: int = 0  # and the one after its last; 0 where this is the whole file

    @property
    def is_piece(self) -> bool:
        """Whether this is a part of a file."""
        return self.end > 0

    @property
    def is_beginning(self) -> bool:
        """Whether this is a whole file or its first piece."""
        return self.start == 0

    def whole(self) -> TextSource:
        """The file that this is a piece of; of num_bytes of the piece."""
        return self._replace(start=0, end=0)


def find_sources(patterns: str) -> tuple[list[TextSource], Counter[str]]:
    """The files that comma-separated names and patterns mean, with all below such folders, without hidden files.

    A name that exists is no pattern. Within folders, files of other suffixes are left out; the Counter has their number
    by suffix. A file that is named itself is text if its suffix is unknown. ValueError where a pattern has no match and
    where nothing is left.
    """
    found: dict[str, TextSource] = {}
    left_out: Counter[str] = Counter()
    for pattern, matches in match_names(patterns):
        if not matches:
            raise ValueError(f"--input_file: no file matches {pattern}")
        for match in matches:
            in_folder = os.path.isdir(match)
            for path in _files_below(match) if in_folder else [match]:
                stem, compression = _without_compression(path)
                suffix = os.path.splitext(stem)[1].lower()
                if in_folder and suffix not in _FORMS:
                    left_out[suffix] += 1
                elif os.path.getsize(path):
                    form = _FORMS.get(suffix, "text")
                    found.setdefault(os.path.abspath(path), TextSource(path, form, compression, os.path.getsize(path)))
                else:
                    left_out["(empty)"] += 1
    if not found:
        raise ValueError(
            f"--input_file: {patterns} holds no text ({describe_suffixes(left_out) or 'no files'}); "
            f"known are {', '.join(sorted(filter(None, _FORMS)))}, also with {', '.join(_COMPRESSIONS)}"
        )
    return list(found.values()), left_out


def _files_below(directory: str) -> Iterator[str]:
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if os.path.isfile(path))


def _without_compression(path: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(path)
    return (stem, suffix.lower()) if suffix.lower() in _COMPRESSIONS else (path, "")


def describe_suffixes(left_out: Counter[str]) -> str:
    """Files by suffix, the most frequent first, in one line."""
    named = [f"{number} {suffix}" for suffix, number in left_out.most_common(8)]
    return ", ".join(named) + (", and others" if len(left_out) > len(named) else "")


def require_library(module: str, what: str) -> Any:
    """A library of the data extra. ValueError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"{what} needs {module}, which is not installed; run: bash init_tf.sh --data") from None


@contextlib.contextmanager
def decompressed(source: TextSource) -> Iterator[IO[bytes]]:
    """The content of the file, or of the piece. ValueError where it cannot be read or decompressed."""
    try:
        with open_regular(source.path, "rb") as raw, _stream(raw, source) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        remedy = "; it is cut short, so get it again" if isinstance(error, EOFError) else ""
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{source.path}: cannot be read ({reason}){remedy}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise ValueError(f"{source.path}: cannot be read ({error})") from None
        raise


class _ExpandingStream(io.RawIOBase):
    """A decompressed file. ValueError where it is so much larger than the file that it must be a trap or damage."""

    def __init__(self, stream: Any, raw: IO[bytes], path: str) -> None:
        self._stream, self._raw, self._path = stream, raw, path
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._num_bytes += len(content)
        if self._num_bytes > max(_MIN_OF_RATIO, _MAX_RATIO * self._raw.tell()):
            raise ValueError(
                f"{self._path}: becomes more than {_MAX_RATIO} times its size, which no text does; "
                "leave it out, or decompress it first if it is right"
            )
        return len(content)


def _stream(raw: IO[bytes], source: TextSource) -> Any:
    compression = source.compression
    if source.is_piece:
        assert not compression, source
        raw.seek(source.start)
        return io.BufferedReader(_LimitedStream(raw, source.end - source.start), _CHUNK)
    if not compression:
        return contextlib.nullcontext(raw)
    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _ZstdStream}[compression](raw)
    return io.BufferedReader(_ExpandingStream(opened, raw, source.path), _CHUNK)


class _LimitedStream(io.RawIOBase):
    """The next num_bytes of a file."""

    def __init__(self, raw: IO[bytes], num_bytes: int) -> None:
        self._raw, self._left = raw, num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._raw.read(min(len(buffer), self._left))
        buffer[: len(content)] = content
        self._left -= len(content)
        return len(content)


class _ZstdStream(io.RawIOBase):
    """The content of zstd frames, one after the other; unlike the library's reader it sees that one is cut short."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._new_frame = require_library("zstandard", "a .zst file").ZstdDecompressor().decompressobj
        self._frame = self._new_frame()
        self._is_within = False  # a frame that has begun
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            rest = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._is_within = self._new_frame(), False
            chunk = rest or self._raw.read(_ZSTD_CHUNK)
            if not chunk:
                if self._is_within:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            self._ready, self._is_within = self._frame.decompress(chunk), True
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def decoded_lines(source: TextSource, encoding: str, num_replaced: Optional[list[int]] = None) -> Iterator[str]:
    """The lines without their ends, in any system's form. Bytes that are not of the encoding become U+FFFD.

    The number of U+FFFD is added to num_replaced[0] as the lines are read.
    """
    with decompressed(source) as stream:
        text = io.TextIOWrapper(stream, encoding, errors="replace")
        while line := text.readline(MAX_LINE):
            if num_replaced is not None and "\ufffd" in line:
                num_replaced[0] += line.count("\ufffd")
            yield line.rstrip("\n")
        text.detach()


def count_occurrences(source: TextSource, pattern: bytes) -> int:
    """How often some bytes, none of which begins them again, are in the content of the file or piece."""
    found, before = 0, b""
    with decompressed(source) as stream:
        while chunk := stream.read(_CHUNK):
            found += (before + chunk).count(pattern)
            before = (before + chunk)[1 - len(pattern) :]
    return found


class NotTextError(Exception):
    """The file is binary."""


class Encoding(NamedTuple):
    """Python's name of an encoding, and what it was chosen by."""

    name: str
    chosen_by: str = "its bytes"


def find_encoding(source: TextSource, settings: TextConfig) -> Encoding:
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
    wide = _utf16_without_mark(head) if b"\0" in head else None
    if wide:
        return Encoding(wide)
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
    name = _encoding_of_language(telling, settings.language)
    return Encoding(name, f"--language={settings.language}") if name else Encoding(_detected(telling), "chardet")


def _first_beyond_ascii(head: bytes, stream: IO[bytes]) -> bytes:
    """The first part of a text that has a byte beyond ASCII; head, which comes before the stream, where none has."""
    parts = itertools.chain([head], iter(lambda: stream.read(_HEAD), b""))
    return next((part for part in itertools.islice(parts, _MAX_ASCII) if not part.isascii()), head)


def _utf16_without_mark(head: bytes) -> Optional[str]:
    for name, places in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if places.count(0) > _MIN_UTF16_SHARE * len(places) and places.count(0) > 0.9 * head.count(0):
            return name
    return None  # a few NUL characters do not make a text binary


def _is_mostly_utf8(text: str) -> bool:
    """Whether more characters beyond ASCII are whole than are damaged."""
    num_beyond = len(text) - len(text.encode("ascii", "ignore"))
    return num_beyond > 2 * text.count("\ufffd")


def _encoding_of_language(head: bytes, code: str) -> Optional[str]:
    """The one of the language's encodings in which the text looks most like it; None where it does in none."""
    language = find_language(code)
    if language is None:  # auto
        return None
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
    """The encoding that chardet tells. NotTextError where it tells none."""
    chardet = require_library("chardet", "text that is not UTF-8")
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
