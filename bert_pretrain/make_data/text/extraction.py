"""A raw file of any form -> its documents, each a list of sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional, Union

from bert_pretrain.config.languages import tell_language
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.corpus import group_documents
from bert_pretrain.make_data.text import prose, reading
from bert_pretrain.make_data.text.account import Account, Records, count_characters
from bert_pretrain.make_data.text.reading import MAX_LINE, NotTextError, TextSource, find_encoding
from bert_pretrain.system.files import plain_name

_MAX_DOCUMENT = 1_000_000  # characters; a longer document is cut between paragraphs
_MAX_HEAD = 4_000_000  # characters that are looked at to tell the layout
_MAX_PART = 1 << 20  # characters of a line of plain text that are looked at together
_MAX_OF_LANGUAGE = 100_000  # characters that are looked at to tell the language
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NOTED = 3  # bad records of a file or piece that are named
_MIN_SENTENCES = 2  # of a document: a pair of sentences needs them
_ROWS_AT_ONCE = 1_000  # of a Parquet file


class FileContent(NamedTuple):
    """What a file holds."""

    kind: str  # json, marked (by WikiExtractor), markup (a document), blank_line (between documents) or file
    layout: Optional[prose.Layout] = None  # of plain text


class _BadRecordError(Exception):
    """A record without a text; its words are the reason."""


def extract_documents(source: TextSource, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """The documents of a file; what becomes of all that it holds is in the account.

    A document that is bad is left out. ValueError where the file is damaged, and where all of its records are bad.
    """
    if source.form == "parquet":
        yield from _from_records(source, _parquet_texts(source, settings.text_column, account), settings, account)
        return
    try:
        encoding, chosen_by = find_encoding(source, settings)
    except NotTextError:
        account.counts["binary files"] += 1
        account.notes.append(f"{source.path}: binary, left out")
        account.add_read(documents=1)
        account.leave_out("binary files", 0, documents=1)
        return
    if encoding not in ("utf-8", "ascii") and source.is_beginning:
        account.counts[f"files in {encoding}"] += 1
        remedy = "" if chosen_by in ("its bytes", "--encoding") else "; --encoding names another"
        account.notes.append(f"{source.path}: in {encoding} by {chosen_by}, converted{remedy}")
    num_replaced = [0]
    lines = reading.decoded_lines(source, encoding, num_replaced)
    if source.is_piece:
        head = _head(reading.decoded_lines(source.whole(), encoding))
    else:
        head = _head(lines)
        lines = itertools.chain(head, lines)
    content = _find_content(source, head, settings)
    if settings.language == "auto":
        settings = _with_language(source, _sample(content, head, settings.text_column), settings, account)
    yield from _from_lines(source, content, _counted(lines, account), settings, account)
    if num_replaced[0] and encoding.startswith("utf-8"):  # the text may hold U+FFFD itself
        num_replaced[0] -= reading.count_occurrences(source, "\ufffd".encode())
    if num_replaced[0]:
        account.counts["damaged characters"] += num_replaced[0]
        place = f"{source.path}, bytes {source.start} to {source.end}" if source.is_piece else source.path
        account.notes.append(f"{place}: {num_replaced[0]} characters are not {encoding}, replaced by U+FFFD")


def _counted(lines: Iterator[str], account: Account) -> Iterator[str]:
    """Counts what is read, and leaves out characters that are part of no text."""
    for line in lines:
        account.add_read(characters=count_characters(line))
        yield _without_marks(line, account)


def _without_marks(text: str, account: Account) -> str:
    """Text without NUL characters and byte order marks."""
    for char, reason in (("\0", "NUL characters"), ("\ufeff", "byte order marks")):
        if char in text:
            account.leave_out(reason, text.count(char))
            text = text.replace(char, "")
    return text


def _with_language(source: TextSource, sample: str, settings: TextConfig, account: Account) -> TextConfig:
    """The settings with the language that the letters of a file tell."""
    language = tell_language(sample)
    if source.is_beginning:
        account.counts[f"files in language {language}"] += 1
    return dataclasses.replace(settings, language=language)


def _sample(content: FileContent, head: Iterable[str], column: str) -> str:
    """The beginning of a file's text. Tags and keys are in Latin letters in text of any language."""
    parts: list[str] = []
    num_chars = 0
    for line in head:
        if content.kind == "json":
            with contextlib.suppress(_BadRecordError):
                parts.append(_text_of_line(line, column))
        else:
            parts.append(prose.without_tags(line) if content.kind in ("markup", "marked") else line)
        num_chars += len(line)
        if num_chars > _MAX_OF_LANGUAGE:
            break
    return "\n".join(parts)[:_MAX_OF_LANGUAGE]


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
        yield from _from_records(source, _json_texts(lines, settings.text_column, account), settings, account)
    elif content.kind == "marked":
        yield from _documents(_marked_documents(lines, account), "paragraph", settings, account)
    elif content.kind == "markup":
        text = _whole_text(source, lines, account)
        if text is not None:
            parse = prose.MARKUP_PARSERS[source.form]
            yield from _divided(parse(text, account), settings, account)
    else:
        found = content.layout
        assert found, source
        if source.is_beginning:
            account.counts[f"files with {found.reason}"] += 1
        lines = _divided_lines(lines, account)
        if content.kind == "blank_line":
            yield from _documents(group_documents(line.strip() for line in lines), found.line, settings, account)
        elif found.line == "sentence":
            yield from _checked([line.strip() for line in lines if line.strip()], settings, account)
        else:
            is_rst = source.form == "rst"
            parts = prose.plain_paragraphs(lines, is_rst, is_rst or found.line == "part", account)
            yield from _divided(parts, settings, account)


def _documents(texts: Iterable[list[str]], line: str, settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """Documents of lines, each of which is a sentence, a paragraph or part of one."""
    for text in texts:
        if line == "sentence":
            yield from _checked(text, settings, account)
        elif line == "part":
            yield from _divided(prose.plain_paragraphs(text, False, True, account), settings, account)
        else:
            is_mlperf = settings.held_out == "mlperf"
            found = prose.sentences_of_article(text, settings.language, is_mlperf, account)
            yield from _checked(found, settings, account)


def _divided(paragraphs: Iterable[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """A document of paragraphs; several where it is too long."""
    document: list[str] = []
    num_chars = 0
    for paragraph in paragraphs:
        found = prose.sentences_of_paragraph(paragraph, settings.language)
        account.leave_out_difference("sentences without a letter", paragraph, found)
        document += found
        num_chars += len(paragraph)
        if num_chars > _MAX_DOCUMENT:
            account.counts["cuts of long documents"] += 1
            yield from _checked(document, settings, account)
            document, num_chars = [], 0
    yield from _checked(document, settings, account)


def _checked(document: list[str], settings: TextConfig, account: Account) -> Iterator[list[str]]:
    """The document, if it holds what is needed; MLPerf's rule counts every document with a sentence."""
    account.add_read(documents=1)
    if len(document) >= (1 if settings.held_out == "mlperf" else _MIN_SENTENCES):
        account.keep(document)
        yield document
    else:
        reason = "documents of less than two sentences"
        account.counts[reason] += 1
        account.leave_out(reason, sum(map(count_characters, document)), documents=1)


def _divided_lines(lines: Iterator[str], account: Account) -> Iterator[str]:
    """The lines, and parts of those that are too long to be looked at together."""
    for line in lines:
        if len(line) <= _MAX_PART:
            yield line
            continue
        for start in range(0, len(line), _MAX_PART):
            account.counts["parts of long lines"] += 1
            yield line[start : start + _MAX_PART]


def _whole_text(source: TextSource, lines: Iterator[str], account: Account) -> Optional[str]:
    """The text of a file that is parsed as a whole; None and a note where it is too long."""
    parts: list[str] = []
    num_chars = num_left_out = 0
    for line in lines:
        num_chars += len(line) + 1
        if num_chars > MAX_LINE:
            num_left_out += sum(map(count_characters, [*parts, line]))
            parts = []
        else:
            parts.append(line)
    if num_chars <= MAX_LINE:
        return "\n".join(parts)
    account.add_read(documents=1)
    account.leave_out("files that are too long", num_left_out, documents=1)
    account.notes.append(
        f"{source.path}: more than {MAX_LINE >> 20} million characters of {source.form}, left out; divide the file"
    )
    return None


def _marked_documents(lines: Iterator[str], account: Account) -> Iterator[list[str]]:
    """What WikiExtractor writes without --json: <doc id=...>, the title, the text, </doc>."""
    document: list[str] = []
    is_within = False

    def take() -> Iterator[list[str]]:
        if is_within:
            account.leave_out("titles", sum(map(count_characters, document[:1])))
        if is_within or any(map(str.strip, document)):
            yield document[is_within:]

    for line in lines:
        is_start = line.startswith("<doc ")
        if is_start or line.startswith("</doc>"):
            account.leave_out("markup", count_characters(line))
            yield from take()
            document, is_within = [], is_start
        else:
            document.append(line)
    yield from take()


def _from_records(
    source: TextSource, texts: Iterator[tuple[int, Union[str, _BadRecordError]]], settings: TextConfig, account: Account
) -> Iterator[list[str]]:
    """The documents of JSON lines or rows, with their numbers in the file or piece.

    ValueError where all of a file are bad; those of pieces are only counted.
    """
    records = Records(0, 0, "")
    if settings.language == "auto":
        first = list(itertools.islice(texts, _ROWS_AT_ONCE))
        sample = "\n".join(text[:_MAX_OF_LANGUAGE] for _, text in first if isinstance(text, str))
        settings = _with_language(source, sample[:_MAX_OF_LANGUAGE], settings, account)
        texts = itertools.chain(first, texts)
    for number, text in texts:
        records = records.plus(Records(1, 0, ""))
        if isinstance(text, str):
            yield from _documents([text.split("\n")], "paragraph", settings, account)
            continue
        place = _describe_place(source, number)
        records = records.plus(Records(0, 1, f"{place} {text}"))
        account.add_read(documents=1)
        account.leave_out(f"records: {text}", 0, documents=1)
        if records.num_bad <= _MAX_NOTED:
            account.notes.append(f"{source.path}: {place} {text}, left out")
    if source.is_piece:
        account.add_records(source.path, records)
    else:
        require_good_record(source.path, records, settings.text_column)


def require_good_record(path: str, records: Records, column: str) -> None:
    """ValueError where all of a file's records are bad."""
    if 0 < records.number == records.num_bad:
        raise ValueError(
            f'{path}: none of {records.number} records holds a text in "{column}" ({records.first_bad}); '
            "--text_column names what holds it"
        )


def _json_texts(
    lines: Iterator[str], column: str, account: Account
) -> Iterator[tuple[int, Union[str, _BadRecordError]]]:
    """The column of each JSON line, with the number of the line."""
    number = 0
    for line in lines:
        number += 1
        if not line or line.isspace():
            continue
        num_chars = count_characters(line)
        text: Union[str, _BadRecordError]
        if len(line) < MAX_LINE:
            try:
                text = _text_of_line(line, column)
            except _BadRecordError as error:
                text = error
        else:  # its other parts follow
            text = _BadRecordError(f"has more than {MAX_LINE >> 20} million characters")
            while len(line) == MAX_LINE and (part := next(lines, None)) is not None:
                num_chars += count_characters(part)
                line = part
        if isinstance(text, str):
            text = _without_marks(_without_surrogates(text, account), account)
            account.leave_out("fields besides the text, JSON", num_chars - count_characters(text))
        else:
            account.leave_out(f"records: {text}", num_chars)
        yield number, text


def _text_of_line(line: str, column: str) -> str:
    """The column of a JSON line. _BadRecordError where there is none."""
    try:
        record = json.loads(line, parse_int=_ignore_number)
    except (ValueError, RecursionError):
        raise _BadRecordError("is not JSON") from None
    if not isinstance(record, dict):
        raise _BadRecordError("is not a JSON object")
    if column not in record:
        raise _BadRecordError(f'has no "{column}"')
    if record[column] is None:
        raise _BadRecordError(f'has null as "{column}"')
    if not isinstance(record[column], str):
        raise _BadRecordError(f'has no text as "{column}"')
    return record[column]


def _ignore_number(_: str) -> int:
    return 0  # Python refuses to convert a number of thousands of digits, or takes quadratic time


def _without_surrogates(text: str, account: Account) -> str:
    """Text with U+FFFD for halves of surrogate pairs, which cannot be written."""
    repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _SURROGATE.search(text) else text
    account.counts["damaged characters"] += len(_SURROGATE.findall(text)) if repaired is not text else 0
    return repaired


def _describe_place(source: TextSource, number: int) -> str:
    """A record of a file or piece, by its number in the file."""
    if source.form == "parquet":
        return f"row {number}" + (f" of row group {source.start} and after" if source.is_piece else "")
    num_before = 0
    if source.start:
        # Line ends are the same bytes in every encoding whose files are divided.
        before = source._replace(start=0, end=source.start)
        num_before = sum(1 for _ in reading.decoded_lines(before, "latin-1"))
    return f"line {num_before + number}"


def _parquet_texts(
    source: TextSource, column: str, account: Account
) -> Iterator[tuple[int, Union[str, _BadRecordError]]]:
    """The column of a Parquet file, or of its row groups of a piece. ValueError for one that cannot be read."""
    if source.compression:
        raise ValueError(f"{source.path}: a compressed Parquet file; decompress it first")
    parquet, arrow = _arrow_libraries()
    number = 0
    try:
        with plain_name(source.path) as plain:
            file = parquet.ParquetFile(plain)
        groups = range(source.start, source.end) if source.is_piece else range(file.num_row_groups)
        names = file.schema_arrow.names
        if column not in names:
            raise ValueError(f"{source.path}: no column {column}; --text_column names one of {', '.join(names)}")
        if source.is_beginning and len(names) > 1:
            others = ", ".join(name for name in names if name != column)
            account.notes.append(f"{source.path}: only column {column} is read, not {others}; --text_column names it")
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=list(groups), columns=[column]):
            for value in _values(batch.column(0), arrow, account):
                number += 1
                if value is None:
                    yield number, _BadRecordError(f'has null as "{column}"')
                    continue
                if not isinstance(value, str):
                    raise ValueError(f"{source.path}: column {column} holds {type(value).__name__}, not text")
                num_chars = count_characters(value)
                account.add_read(characters=num_chars)
                if len(value) > MAX_LINE:
                    error = _BadRecordError(f"has more than {MAX_LINE >> 20} million characters")
                    account.leave_out(f"records: {error}", num_chars)
                    yield number, error
                else:
                    yield number, _without_marks(value, account)
    except (OSError, arrow.ArrowException) as error:
        if isinstance(error, ValueError) and str(error).startswith(source.path):
            raise
        raise ValueError(f"{source.path}: cannot be read ({str(error).splitlines()[0]})") from None


def _values(column: Any, arrow: Any, account: Account) -> list[Any]:
    """The values of a column; U+FFFD for bytes that are not UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        texts = [value and value.decode("utf-8", "replace") for value in column.cast(arrow.large_binary()).to_pylist()]
        account.counts["damaged characters"] += sum(text.count("\ufffd") for text in texts if text)
        return texts


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
