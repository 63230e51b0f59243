"""A raw file -> its documents, each a list of sentences."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Optional

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.corpus import group
from bert_pretrain.make_data.raw_text import decoding, layout, markup, prose, sentences
from bert_pretrain.make_data.raw_text.encoding import NotTextError, find_encoding
from bert_pretrain.make_data.raw_text.sources import Source

_MAX_DOCUMENT = 1_000_000  # characters; a longer document is cut between paragraphs
_MAX_HEAD = 4_000_000  # characters that are looked at to tell the layout
_MAX_MARKUP = 64 << 20  # characters of a file that is parsed as a whole
_ROWS_AT_ONCE = 1_000  # of a Parquet file
_MIN_SENTENCES = 2  # of a document: a pair of sentences needs them


class Account:
    """What was left out or changed, by kind, and lines about single files for the user."""

    def __init__(self) -> None:
        self.counts: Counter = Counter()
        self.notes: list[str] = []


def extract(source: Source, settings: TextConfig, account: Account) -> Iterator[list[str]]:
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
    if encoding not in ("utf-8", "ascii"):
        account.counts[f"files in {encoding}"] += 1
        account.notes.append(f"{source.path}: in {encoding} by {chosen_by}, converted")
    num_replaced = [0]
    yield from _from_lines(source, decoding.lines(source, encoding, num_replaced), settings, account)
    if num_replaced[0]:
        account.counts["damaged characters"] += num_replaced[0]
        account.notes.append(f"{source.path}: {num_replaced[0]} characters are not {encoding}, replaced by U+FFFD")


def _from_lines(source: Source, lines: Iterator[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    head = list(itertools.islice(_until_enough(lines), layout.MAX_LINES))
    first = next((line.lstrip() for line in head if line.strip()), "")
    lines = itertools.chain(head, lines)
    if source.form == "jsonl" or settings.documents == "jsonl" or (source.form == "text" and first.startswith("{")):
        texts = _json_texts(source.path, lines, settings.text_column)
        yield from _documents((text.split("\n") for text in texts), "paragraph", settings, account)
    elif first.startswith("<doc "):
        yield from _documents(_marked_documents(lines), "paragraph", settings, account)
    elif source.form in ("markdown", "html"):
        parse = markup.markdown_paragraphs if source.form == "markdown" else markup.html_paragraphs
        yield from _divided(parse(_whole(source, lines), account.counts), settings, account)
    else:
        yield from _plain(source, head, lines, settings, account)


def _until_enough(lines: Iterator[str]) -> Iterator[str]:
    """The first lines, as many as tell the layout."""
    num_chars = 0
    while num_chars < _MAX_HEAD and (line := next(lines, None)) is not None:
        num_chars += len(line)
        yield line


def _plain(
    source: Source, head: list[str], lines: Iterator[str], settings: TextConfig, account: Account
) -> Iterator[list[str]]:
    found = layout.look(head)
    if settings.held_out == "mlperf":
        found = layout.Layout("paragraph", "blank_line", "MLPerf's rule")
    is_by_line = settings.documents == "blank_line" or (settings.documents == "auto" and found.document == "blank_line")
    account.counts[f"files with {found.reason}"] += 1
    if is_by_line:
        yield from _documents(group(line.strip() for line in lines), found.line, settings, account)
    elif found.line == "sentence":
        yield from _checked([line.strip() for line in lines if line.strip()], settings, account)
    else:
        is_rst = source.form == "rst"
        parts = prose.paragraphs(lines, is_rst, is_rst or found.line == "part", account.counts)
        yield from _divided(parts, settings, account)


def _documents(texts: Iterable[list[str]], line: str, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """Documents of lines, each of which is a sentence, a paragraph or part of one."""
    for text in texts:
        if line == "sentence":
            yield from _checked(text, settings, account)
        elif line == "part":
            yield from _divided(prose.paragraphs(text, False, True, account.counts), settings, account)
        else:
            yield from _checked(
                sentences.of_article(text, settings.language, settings.held_out == "mlperf"), settings, account
            )


def _divided(paragraphs: Iterable[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """A document of paragraphs; several where it is too long."""
    document: list[str] = []
    num_chars = 0
    for paragraph in paragraphs:
        document += sentences.of_paragraph(paragraph, settings.language)
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


def _whole(source: Source, lines: Iterator[str]) -> str:
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


def _json_texts(path: str, lines: Iterator[str], column: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        text: Optional[str] = None
        try:
            text = json.loads(line)[column]
            text.encode()  # half of a surrogate pair cannot be written
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            text = None
        if text is None:
            raise ValueError(f'{path}: line {number} is not a JSON object with a "{column}"; each line must be one')
        yield text


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


def _parquet_texts(source: Source, column: str) -> Iterator[str]:
    if source.compression:
        raise ValueError(f"{source.path}: a compressed Parquet file; decompress it first")
    parquet, arrow = (decoding.need(f"pyarrow{name}", "a Parquet file") for name in (".parquet", ""))
    try:
        file = parquet.ParquetFile(source.path)
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"{source.path}: no column {column}; --text_column names one of {', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
            for value in batch.column(0).to_pylist():
                if value is not None and not isinstance(value, str):
                    raise ValueError(f"{source.path}: column {column} holds {type(value).__name__}, not text")
                yield value or ""
    except (OSError, arrow.ArrowException) as error:
        if isinstance(error, ValueError) and str(error).startswith(source.path):
            raise
        raise ValueError(f"{source.path}: cannot be read ({str(error).splitlines()[0]})") from None
