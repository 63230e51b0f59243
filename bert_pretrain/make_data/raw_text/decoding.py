"""The bytes of a raw file as lines of text: decompressed, in whatever encoding they are."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, Optional

from bert_pretrain.make_data.raw_text.sources import Source
from bert_pretrain.system.files import open_regular

_CHUNK = 1 << 17
_MAX_LINE = 64 << 20  # characters; a longer line is read in parts


def need(module: str, what: str) -> Any:
    """A library of the data extra. ValueError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"{what} needs {module}, which is not installed; run: bash init_tf.sh --data") from None


@contextlib.contextmanager
def decompressed(source: Source) -> Iterator[IO[bytes]]:
    """The content of the file, or of the piece. ValueError where it cannot be read or decompressed."""
    try:
        with open_regular(source.path, "rb") as raw, _stream(raw, source) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{source.path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise ValueError(f"{source.path}: cannot be read ({error})") from None
        raise


def _stream(raw: IO[bytes], source: Source) -> Any:
    compression = source.compression
    if source.is_piece:
        assert not compression, source
        raw.seek(source.start)
        return io.BufferedReader(_Limited(raw, source.end - source.start), _CHUNK)
    if compression == ".gz":
        return gzip.open(raw)
    if compression == ".bz2":
        return bz2.open(raw)
    if compression == ".xz":
        return lzma.open(raw)
    if compression == ".zst":
        return io.BufferedReader(_ZstdStream(raw), _CHUNK)
    return contextlib.nullcontext(raw)


class _Limited(io.RawIOBase):
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
        self._new_frame = need("zstandard", "a .zst file").ZstdDecompressor().decompressobj
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
            chunk = rest or self._raw.read(_CHUNK)
            if not chunk:
                if self._is_within:
                    raise EOFError("compressed file ended before the end of its last frame")
                return 0
            self._ready, self._is_within = self._frame.decompress(chunk), True
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def lines(source: Source, encoding: str, num_replaced: Optional[list[int]] = None) -> Iterator[str]:
    """The lines without their ends, in any system's form. Bytes that are not of the encoding become U+FFFD."""
    with decompressed(source) as stream:
        text = io.TextIOWrapper(stream, encoding, errors="replace")
        while line := text.readline(_MAX_LINE):
            if num_replaced is not None and "\ufffd" in line:
                num_replaced[0] += line.count("\ufffd")
            yield line.rstrip("\n")
        text.detach()


def count(source: Source, pattern: bytes) -> int:
    """How often some bytes, none of which begins them again, are in the content of the file or piece."""
    found, before = 0, b""
    with decompressed(source) as stream:
        while chunk := stream.read(_CHUNK):
            found += (before + chunk).count(pattern)
            before = (before + chunk)[1 - len(pattern) :]
    return found
