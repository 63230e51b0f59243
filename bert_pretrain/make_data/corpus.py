"""Text files as documents: one sentence a line, a blank line between documents."""

from __future__ import annotations

import bisect
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TextIO

from bert_pretrain.system.files import match_names, open_regular

_BYTES_IN_BLOCK = 1 << 20


class Span(NamedTuple):
    """Bytes start:end of a text file; both lie between documents."""

    path: str
    start: int
    end: int


def find_text(patterns: str, flag: str = "--input_file") -> list[Span]:
    """The files that comma-separated names and patterns mean, in order. ValueError where one of these means none.

    A name that exists is no pattern. A folder that is named means its .txt files; patterns match files alone.
    """
    paths = []
    for name, matches in match_names(patterns):
        found = [path for path in matches if not os.path.isdir(path)]
        if matches == [name] and not found:
            files = sorted(file for file in os.listdir(name) if file.endswith(".txt") and not file.startswith("."))
            found = [os.path.join(name, file) for file in files]
            if not found:
                raise ValueError(f"{flag}: the folder {name} holds no .txt file")
        if not found:
            raise ValueError(f"{flag}: no file matches {name}")
        paths += found
    if not paths:
        raise ValueError(f"{flag} names no file")
    spans = [whole_file(path) for path in paths]
    for span in spans:
        _refuse_other_forms(span.path)
    return spans


def whole_file(path: str) -> Span:
    """All of a text file. ValueError for one that is empty or cannot be read."""
    try:
        with open_regular(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if not size:
        raise ValueError(f"{path}: empty; give text, one sentence a line and a blank line between documents")
    return Span(path, 0, size)


def _refuse_other_forms(path: str) -> None:
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    for mark, form in ((b'{"', "JSON"), (b"<doc ", "WikiExtractor's"), (b"<mediawiki", "a Wikipedia dump")):
        if start.startswith(mark):
            raise ValueError(
                f"{path}: {form}, not one sentence a line; convert it with --make_text or scripts/make_data.sh"
            )


def read_documents(spans: Iterable[Span], as_google: bool = False) -> Iterator[list[str]]:
    """The documents in order, each a list of non-empty lines. ValueError names the file and byte at fault.

    as_google: as google-research/bert's script reads with TensorFlow's file reader: the end of a file does not end a
    document, and carriage returns are removed.
    """
    if as_google:
        lines = chain.from_iterable(map(read_lines, spans))
        return group_documents(line.replace("\r", "").strip() for line in lines)
    return chain.from_iterable(group_documents(read_lines(span)) for span in spans)


def group_documents(lines: Iterable[str]) -> Iterator[list[str]]:
    """Groups lines into documents, which are runs of non-empty lines."""
    document: list[str] = []
    for line in lines:
        if line:
            document.append(line)
        elif document:
            yield document
            document = []
    if document:
        yield document


def read_lines(span: Span) -> Iterator[str]:
    """Lines without leading and trailing white space. ValueError names the file and byte at fault."""
    for block in read_blocks(span):
        lines = block.split("\n")  # only \n ends a line
        if not lines[-1]:
            lines.pop()
        yield from map(str.strip, lines)


def read_blocks(span: Span) -> Iterator[str]:
    """Text in blocks of whole lines. ValueError names the file and byte at fault."""
    position = span.start
    try:
        with open(span.path, "rb") as file:
            file.seek(position)
            while block := file.read(min(_BYTES_IN_BLOCK, span.end - position)):
                block += file.readline() if block[-1:] != b"\n" else b""
                yield block.decode("utf-8")
                position += len(block)
                if position >= span.end:
                    return
    except OSError as error:
        raise ValueError(f"{span.path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{span.path}: byte {position + error.start} is not UTF-8 ({error.reason}); "
            f"convert the file, for example with iconv -f latin1 -t utf-8"
        ) from None


def read_first_blocks(spans: Iterable[Span], max_bytes: int) -> Iterator[str]:
    """The blocks of several texts, until at least max_bytes characters have been read."""
    num_chars = 0
    for block in chain.from_iterable(map(read_blocks, spans)):
        yield block
        num_chars += len(block)
        if num_chars >= max_bytes:
            return


def write_documents(file: TextIO, documents: Iterable[list[str]]) -> None:
    """Writes documents in the form that read_documents reads."""
    file.writelines("\n".join(document) + "\n\n" for document in documents)


def cut_between_lines(spans: Iterable[Span], max_bytes: int) -> Iterator[Span]:
    """Texts of about max_bytes, or as long as a line that is longer."""
    for path, start, end in spans:
        with open(path, "rb") as file:
            while end - start > max_bytes:
                file.seek(start + max_bytes - 1)
                file.readline()
                cut = min(file.tell(), end)
                yield Span(path, start, cut)
                start = cut
        if start < end:
            yield Span(path, start, end)


def split_end(spans: Sequence[Span], num_bytes: int) -> tuple[list[Span], list[Span]]:
    """The text without about num_bytes of whole documents at its end, and these; none where there is no such cut."""
    total = sum(span.end - span.start for span in spans)
    spans = list(spans)
    cut = _next_beginning(spans, total - num_bytes)
    return _between(spans, (0, spans[0].start), cut), _between(spans, cut, (len(spans), 0))


def divide_text(spans: list[Span], num_parts: int) -> list[list[Span]]:
    """Cuts text between documents into `num_parts` of about equal size. ValueError if there are too few documents."""
    total = sum(span.end - span.start for span in spans)
    cuts = [_next_beginning(spans, total * part // num_parts) for part in range(num_parts)]
    cuts = [(0, spans[0].start), *cuts[1:], (len(spans), 0)]
    parts = [_between(spans, begin, end) for begin, end in zip(cuts, cuts[1:])]
    if not all(parts):
        raise ValueError(
            f"{spans[0].path}: too few documents for {num_parts} outputs; {_largest_division(spans, num_parts)} is the "
            "largest number that works (--num_shards, which scripts/make_data.sh calls NUM_SHARDS)"
        )
    return parts


def _largest_division(spans: Sequence[Span], too_many: int) -> int:
    """The largest number of parts below too_many for which divide finds as many."""
    keys, cuts = _places_to_cut(spans)
    total = cuts[-1]

    def works(num_parts: int) -> bool:
        before = 0
        for part in range(1, num_parts):
            cut = cuts[bisect.bisect_right(keys, total * part // num_parts)]
            if not before < cut < total:
                return False
            before = cut
        return True

    return next(number for number in range(too_many - 1, 0, -1) if number == 1 or works(number))


def _places_to_cut(spans: Sequence[Span]) -> tuple[array[int], array[int]]:
    """Beginnings and ends of all blank lines, and the ends of all files, as bytes of all spans together."""
    keys, cuts = array("q"), array("q")
    first = 0
    for span in spans:
        with open(span.path, "rb") as file:
            file.seek(span.start)
            position = first
            for line in file:
                if position + len(line) >= first + span.end - span.start:
                    break
                if not line.strip():
                    keys.append(position)
                    cuts.append(position + len(line))
                position += len(line)
        first += span.end - span.start
        keys.append(first)
        cuts.append(first)
    return keys, cuts


def _next_beginning(spans: list[Span], offset: int) -> tuple[int, int]:
    """Span number and byte of the first document at or after byte `offset` of all spans together."""
    for number, span in enumerate(spans):
        size = span.end - span.start
        if offset < size:
            return _after_blank_line(span, span.start + offset, number) if offset else (number, span.start)
        offset -= size
    return len(spans), 0


def _after_blank_line(span: Span, position: int, number: int) -> tuple[int, int]:
    with open(span.path, "rb") as file:
        file.seek(position)
        position += len(file.readline())  # the rest of a line
        for line in file:
            position += len(line)
            if position >= span.end:
                break
            if not line.strip():
                return number, position
    return number + 1, 0


def _between(spans: list[Span], begin: tuple[int, int], end: tuple[int, int]) -> list[Span]:
    pieces = []
    for number, span in enumerate(spans[begin[0] : end[0] + 1], start=begin[0]):
        first = begin[1] if number == begin[0] and begin[1] else span.start
        last = end[1] if number == end[0] else span.end
        if first < last:
            pieces.append(Span(span.path, first, last))
    return pieces
