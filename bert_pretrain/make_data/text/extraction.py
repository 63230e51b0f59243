"""A raw file of any form -> its documents, each a list of sentences."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.corpus import group_documents
from bert_pretrain.make_data.text import prose, reading
from bert_pretrain.make_data.text.reading import NotTextError, TextSource, find_encoding
from bert_pretrain.system.files import plain_name

_MAX_DOCUMENT = 1_000_000  # characters; a longer document is cut between paragraphs
_MAX_HEAD = 4_000_000  # characters that are looked at to tell the layout
_MAX_MARKUP = 64 << 20  # characters of a file that is parsed as a whole
_MIN_SENTENCES = 2  # of a document: a pair of sentences needs them
_ROWS_AT_ONCE = 1_000  # of a Parquet file


class Account:
    """What was left out or changed, by kind, and lines about single files for the user."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []


class FileContent(NamedTuple):
    """What a file holds."""

    kind: str  # json, marked (by WikiExtractor), markup (a document), blank_line (between documents) or file
    layout: Optional[prose.Layout] = None  # of plain text


def extract_documents(source: TextSource, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """The documents of a file. ValueError where it is damaged; a binary one gives none and a note."""
    if source.form == "parquet":
        texts = _parquet_texts(source, settings.text_column)
        yield from _documents((text.split("\n") for text in texts), "paragraph", settings, account)
        return
    try:
        encoding, chosen_by = find_encoding(source, settings)
    except NotTextError:
        account.counts["binary files"] += 1
        account.notes.append(f"{source.path}: binary, left out")
        return
    if encoding not in ("utf-8", "ascii") and source.is_beginning:
        account.counts[f"files in {encoding}"] += 1
        account.notes.append(f"{source.path}: in {encoding} by {chosen_by}, converted")
    num_replaced = [0]
    lines = reading.decoded_lines(source, encoding, num_replaced)
    if source.is_piece:
        head = _head(reading.decoded_lines(source.whole(), encoding))
    else:
        head = _head(lines)
        lines = itertools.chain(head, lines)
    yield from _from_lines(source, _find_content(source, head, settings), lines, settings, account)
    if num_replaced[0] and encoding.startswith("utf-8"):  # the text may hold U+FFFD itself
        num_replaced[0] -= reading.count_occurrences(source, "\ufffd".encode())
    if num_replaced[0]:
        account.counts["damaged characters"] += num_replaced[0]
        place = f"{source.path}, bytes {source.start} to {source.end}" if source.is_piece else source.path
        account.notes.append(f"{place}: {num_replaced[0]} characters are not {encoding}, replaced by U+FFFD")


def find_encoding_and_content(source: TextSource, settings: TextConfig) -> tuple[str, FileContent]:
    """The encoding of a file, and what it holds. NotTextError for binary content."""
    encoding = find_encoding(source, settings).name
    return encoding, _find_content(source, _head(reading.decoded_lines(source.whole(), encoding)), settings)


def _find_content(source: TextSource, head: list[str], settings: TextConfig) -> FileContent:
    """What a file holds that begins with these lines."""
    first = next((line.lstrip() for line in head if line.strip()), "")
    if source.form == "jsonl" or settings.documents == "jsonl" or (source.form == "text" and first.startswith("{")):
        return FileContent("json")
    if first.startswith("<doc "):
        return FileContent("marked")
    if source.form in prose.MARKUP_PARSERS:
        return FileContent("markup")
    found = prose.find_layout(head)
    if settings.held_out == "mlperf":
        found = prose.Layout("paragraph", "blank_line", "MLPerf's rule")
    return FileContent(found.document if settings.documents == "auto" else settings.documents, found)


def _head(lines: Iterator[str]) -> list[str]:
    """The first lines, as many as tell what a file holds; takes no more of `lines`."""
    head: list[str] = []
    num_chars = 0
    while len(head) < prose.MAX_LAYOUT_LINES and num_chars < _MAX_HEAD and (line := next(lines, None)) is not None:
        num_chars += len(line)
        head.append(line)
    return head


def _from_lines(
    source: TextSource, content: FileContent, lines: Iterator[str], settings: TextConfig, account: Account
) -> Iterator[list[str]]:
    if content.kind == "json":
        texts = _json_texts(source, lines, settings.text_column)
        yield from _documents((text.split("\n") for text in texts), "paragraph", settings, account)
    elif content.kind == "marked":
        yield from _documents(_marked_documents(lines), "paragraph", settings, account)
    elif content.kind == "markup":
        parse = prose.MARKUP_PARSERS[source.form]
        yield from _divided(parse(_whole_text(source, lines), account.counts), settings, account)
    else:
        found = content.layout
        assert found, source
        if source.is_beginning:
            account.counts[f"files with {found.reason}"] += 1
        if content.kind == "blank_line":
            yield from _documents(group_documents(line.strip() for line in lines), found.line, settings, account)
        elif found.line == "sentence":
            yield from _checked([line.strip() for line in lines if line.strip()], settings, account)
        else:
            is_rst = source.form == "rst"
            parts = prose.plain_paragraphs(lines, is_rst, is_rst or found.line == "part", account.counts)
            yield from _divided(parts, settings, account)


def _documents(texts: Iterable[list[str]], line: str, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """Documents of lines, each of which is a sentence, a paragraph or part of one."""
    for text in texts:
        if line == "sentence":
            yield from _checked(text, settings, account)
        elif line == "part":
            yield from _divided(prose.plain_paragraphs(text, False, True, account.counts), settings, account)
        else:
            yield from _checked(
                prose.sentences_of_article(text, settings.language, settings.held_out == "mlperf"), settings, account
            )


def _divided(paragraphs: Iterable[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """A document of paragraphs; several where it is too long."""
    document: list[str] = []
    num_chars = 0
    for paragraph in paragraphs:
        document += prose.sentences_of_paragraph(paragraph, settings.language)
        num_chars += len(paragraph)
        if num_chars > _MAX_DOCUMENT:
            account.counts["cuts of long documents"] += 1
            yield from _checked(document, settings, account)
            document, num_chars = [], 0
    yield from _checked(document, settings, account)


def _checked(document: list[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """The document, if it holds what is needed; MLPerf's rule counts every document with a sentence."""
    if len(document) >= (1 if settings.held_out == "mlperf" else _MIN_SENTENCES):
        yield document
    else:
        account.counts["documents of less than two sentences"] += 1


def _whole_text(source: TextSource, lines: Iterator[str]) -> str:
    parts: list[str] = []
    num_chars = 0
    for line in lines:
        parts.append(line)
        num_chars += len(line) + 1
        if num_chars > _MAX_MARKUP:
            raise ValueError(
                f"{source.path}: more than {_MAX_MARKUP >> 20} million characters of {source.form}; divide the file"
            )
    return "\n".join(parts)


def _marked_documents(lines: Iterator[str]) -> Iterator[list[str]]:
    """What WikiExtractor writes without --json: <doc id=...>, the title, the text, </doc>."""
    document: list[str] = []
    for line in lines:
        if line.startswith("<doc "):
            document = []
        elif line.startswith("</doc>"):
            yield document[1:]
            document = []
        else:
            document.append(line)
    if document:
        yield document


def _json_texts(source: TextSource, lines: Iterator[str], column: str) -> Iterator[str]:
    """The column of each JSON line of a file or piece, whose lines these are. ValueError names the line at fault."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text: str = json.loads(line)[column]
            text.encode()  # half of a surrogate pair cannot be written
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            where = f"{source.path}: line {_num_lines_before(source) + number}"
            raise ValueError(f'{where} is not a JSON object with a "{column}"; each line must be one') from None
        yield text


def _num_lines_before(source: TextSource) -> int:
    if not source.start:
        return 0
    # Line ends are the same bytes in every encoding whose files are divided.
    return sum(1 for _ in reading.decoded_lines(source._replace(start=0, end=source.start), "latin-1"))


def _parquet_texts(source: TextSource, column: str) -> Iterator[str]:
    """The column of a Parquet file, or of its row groups of a piece. ValueError for one that cannot be read."""
    if source.compression:
        raise ValueError(f"{source.path}: a compressed Parquet file; decompress it first")
    parquet, arrow = _arrow_libraries()
    try:
        with plain_name(source.path) as plain:
            file = parquet.ParquetFile(plain)
        groups = range(source.start, source.end) if source.is_piece else range(file.num_row_groups)
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"{source.path}: no column {column}; --text_column names one of {', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=list(groups), columns=[column]):
            for value in batch.column(0).to_pylist():
                if value is not None and not isinstance(value, str):
                    raise ValueError(f"{source.path}: column {column} holds {type(value).__name__}, not text")
                yield value or ""
    except (OSError, arrow.ArrowException) as error:
        if isinstance(error, ValueError) and str(error).startswith(source.path):
            raise
        raise ValueError(f"{source.path}: cannot be read ({str(error).splitlines()[0]})") from None


def parquet_row_groups(source: TextSource) -> list[int]:
    """Bytes of each row group of a Parquet file; none where it cannot be read, which extract_documents explains."""
    parquet, arrow = _arrow_libraries()
    try:
        with plain_name(source.path) as plain:
            facts = parquet.ParquetFile(plain).metadata
        return [facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)]
    except (OSError, arrow.ArrowException):
        return []


def _arrow_libraries() -> Iterator[Any]:
    return (reading.require_library(f"pyarrow{name}", "a Parquet file") for name in (".parquet", ""))
