"""Cuts large files between documents, so that several processes can read them.

Where a file is cut depends on the file and the settings alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Callable

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.raw_text import records
from bert_pretrain.make_data.raw_text.decoding import decompressed
from bert_pretrain.make_data.raw_text.encoding import NotTextError, is_cut_at_line_feeds
from bert_pretrain.make_data.raw_text.extraction import look_at
from bert_pretrain.make_data.raw_text.sources import Source

_MAX_READ = 1 << 20  # bytes of a line in memory

# Whether a document begins at a line, given how the line before it and this one begin.
_IsBeginning = Callable[[bytes, bytes], bool]
_BEGINNINGS: dict[str, _IsBeginning] = {
    "json": lambda before, line: True,
    "marked": lambda before, line: line.startswith(b"<doc "),
    "blank_line": lambda before, line: not before.strip(),
}


def pieces(source: Source, settings: TextConfig, size: int) -> list[Source]:
    """A file as pieces of at least `size` bytes, or as it is where it is small or cannot be cut.

    Compressed files are read from their beginning, one that is a document is one, and MLPerf's rule counts files.
    """
    if source.num_bytes < 2 * size or source.compression or settings.held_out == "mlperf":
        return [source]
    if source.form == "parquet":
        return _groups_of_rows(source, size)
    try:
        encoding, content = look_at(source, settings)
    except NotTextError:
        return [source]
    if content.kind not in _BEGINNINGS or not is_cut_at_line_feeds(encoding):
        return [source]
    with decompressed(source) as file:
        cuts = [0, *_cuts(file, _BEGINNINGS[content.kind], source.num_bytes, size), source.num_bytes]
    return [source._replace(num_bytes=end - start, start=start, end=end) for start, end in zip(cuts, cuts[1:])]


def _cuts(file: IO[bytes], is_beginning: _IsBeginning, num_bytes: int, size: int) -> Iterator[int]:
    """The first beginning of a document that is `size` bytes after the one before, and so on."""
    position = size
    while position < num_bytes - size // 2:  # the last piece is not much smaller than the others
        position = _next_beginning(file, is_beginning, position)
        if position < num_bytes:
            yield position
        position += size


def _next_beginning(file: IO[bytes], is_beginning: _IsBeginning, position: int) -> int:
    """The first beginning of a document after the line at this byte; the end of the file where there is none."""
    file.seek(position)
    before, _ = b"-", _rest_of_line(file)
    while line := file.readline(_MAX_READ):
        start = file.tell() - len(line)
        if is_beginning(before, line):
            return start
        before = line
        if not line.endswith(b"\n"):
            before = b"-"  # not known to be blank
            _rest_of_line(file)
    return file.tell()


def _rest_of_line(file: IO[bytes]) -> None:
    while (part := file.readline(_MAX_READ)) and not part.endswith(b"\n"):
        pass


def _groups_of_rows(source: Source, size: int) -> list[Source]:
    """The row groups of a Parquet file; several of them where they are small."""
    found: list[Source] = []
    sizes = records.row_groups(source)
    start = filled = 0
    for number, num_bytes in enumerate(sizes, start=1):
        filled += num_bytes
        if filled >= size or number == len(sizes):
            share = source.num_bytes * filled // max(1, sum(sizes))
            found.append(source._replace(num_bytes=share, start=start, end=number))
            start, filled = number, 0
    return found or [source]
