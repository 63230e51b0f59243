"""A raw file -> its documents, each a list of sentences."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.corpus import group
from bert_pretrain.make_data.raw_text import decoding, layout, markup, prose, records, sentences
from bert_pretrain.make_data.raw_text.encoding import NotTextError, find_encoding
from bert_pretrain.make_data.raw_text.sources import Source

_MAX_DOCUMENT = 1_000_000  # characters; a longer document is cut between paragraphs
_MAX_HEAD = 4_000_000  # characters that are looked at to tell the layout
_MAX_MARKUP = 64 << 20  # characters of a file that is parsed as a whole
_MIN_SENTENCES = 2  # of a document: a pair of sentences needs them


class Account:
    """What was left out or changed, by kind, and lines about single files for the user."""

    def __init__(self) -> None:
        self.counts: Counter = Counter()
        self.notes: list[str] = []


def extract(source: Source, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """The documents of a file. ValueError where it is damaged; a binary one gives none and a note."""
    if source.form == "parquet":
        texts = records.parquet_texts(source, settings.text_column)
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
    lines = decoding.lines(source, encoding, num_replaced)
    if source.is_piece:
        head = _head(decoding.lines(source.whole(), encoding))
    else:
        head = _head(lines)
        lines = itertools.chain(head, lines)
    yield from _from_lines(source, look(source, head, settings), lines, settings, account)
    if num_replaced[0] and encoding.startswith("utf-8"):  # the text may hold U+FFFD itself
        num_replaced[0] -= decoding.count(source, "\ufffd".encode())
    if num_replaced[0]:
        account.counts["damaged characters"] += num_replaced[0]
        place = f"{source.path}, bytes {source.start} to {source.end}" if source.is_piece else source.path
        account.notes.append(f"{place}: {num_replaced[0]} characters are not {encoding}, replaced by U+FFFD")


class Content(NamedTuple):
    """What a file holds."""

    kind: str  # json, marked (by WikiExtractor), markup (as a whole), blank_line (between documents) or file
    layout: Optional[layout.Layout] = None  # of plain text


def look(source: Source, head: list[str], settings: TextConfig) -> Content:
    """What a file holds that begins with these lines."""
    first = next((line.lstrip() for line in head if line.strip()), "")
    if source.form == "jsonl" or settings.documents == "jsonl" or (source.form == "text" and first.startswith("{")):
        return Content("json")
    if first.startswith("<doc "):
        return Content("marked")
    if source.form in ("markdown", "html"):
        return Content("markup")
    found = layout.look(head)
    if settings.held_out == "mlperf":
        found = layout.Layout("paragraph", "blank_line", "MLPerf's rule")
    return Content(found.document if settings.documents == "auto" else settings.documents, found)


def look_at(source: Source, settings: TextConfig) -> tuple[str, Content]:
    """The encoding of a file, and what it holds. NotTextError for binary content."""
    encoding = find_encoding(source, settings).name
    return encoding, look(source, _head(decoding.lines(source.whole(), encoding)), settings)


def _from_lines(
    source: Source, content: Content, lines: Iterator[str], settings: TextConfig, account: Account
) -> Iterator[list[str]]:
    if content.kind == "json":
        texts = records.json_texts(source, lines, settings.text_column)
        yield from _documents((text.split("\n") for text in texts), "paragraph", settings, account)
    elif content.kind == "marked":
        yield from _documents(_marked_documents(lines), "paragraph", settings, account)
    elif content.kind == "markup":
        parse = markup.markdown_paragraphs if source.form == "markdown" else markup.html_paragraphs
        yield from _divided(parse(_whole(source, lines), account.counts), settings, account)
    else:
        yield from _plain(source, content, lines, settings, account)


def _head(lines: Iterator[str]) -> list[str]:
    """The first lines, as many as tell what a file holds."""
    return list(itertools.islice(_until_enough(lines), layout.MAX_LINES))


def _until_enough(lines: Iterator[str]) -> Iterator[str]:
    num_chars = 0
    while num_chars < _MAX_HEAD and (line := next(lines, None)) is not None:
        num_chars += len(line)
        yield line


def _plain(
    source: Source, content: Content, lines: Iterator[str], settings: TextConfig, account: Account
) -> Iterator[list[str]]:
    found = content.layout
    assert found, source
    if source.is_beginning:
        account.counts[f"files with {found.reason}"] += 1
    if content.kind == "blank_line":
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
