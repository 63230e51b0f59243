"""Texts of JSON lines and of the rows of Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Optional

from bert_pretrain.make_data.raw_text import decoding
from bert_pretrain.make_data.raw_text.sources import Source

_ROWS_AT_ONCE = 1_000  # of a Parquet file


def json_texts(source: Source, lines: Iterator[str], column: str) -> Iterator[str]:
    """The column of each JSON line of a file or piece, whose lines these are. ValueError names the line at fault."""
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
            where = f"{source.path}: line {_num_lines_before(source) + number}"
            raise ValueError(f'{where} is not a JSON object with a "{column}"; each line must be one')
        yield text


def _num_lines_before(source: Source) -> int:
    if not source.start:
        return 0
    # Line ends are the same bytes in every encoding whose files are divided.
    return sum(1 for _ in decoding.lines(source._replace(start=0, end=source.start), "latin-1"))


def parquet_texts(source: Source, column: str) -> Iterator[str]:
    """The column of a Parquet file, or of its row groups of a piece. ValueError for one that cannot be read."""
    if source.compression:
        raise ValueError(f"{source.path}: a compressed Parquet file; decompress it first")
    parquet, arrow = _libraries()
    try:
        file = parquet.ParquetFile(source.path)
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


def row_groups(source: Source) -> list[int]:
    """Bytes of each row group of a Parquet file; none where it cannot be read, which parquet_texts explains."""
    parquet, arrow = _libraries()
    try:
        facts = parquet.ParquetFile(source.path).metadata
        return [facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)]
    except (OSError, arrow.ArrowException):
        return []


def _libraries() -> Any:
    return (decoding.need(f"pyarrow{name}", "a Parquet file") for name in (".parquet", ""))
