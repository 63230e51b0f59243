"""Rows of few shapes, for backends that compile a program for each.

All rows are as wide as the records, and a micro-batch gets empty rows until their number is one of at most eight.
"""

from __future__ import annotations

import bisect

import numpy as np

_MOST_SHAPES, _RATIO = 8, 7 / 8


def row_counts(rows_per_micro_batch: int) -> list[int]:
    """The numbers of rows that a micro-batch of at most rows_per_micro_batch may have, ascending."""
    counts = [rows_per_micro_batch]
    while len(counts) < _MOST_SHAPES and counts[-1] > 1:
        counts.append(min(counts[-1] - 1, int(np.ceil(counts[-1] * _RATIO))))
    return counts[::-1]


def add_empty_rows(
    rows: list[list[int]], row_splits: np.ndarray, rows_per_micro_batch: int
) -> tuple[list[list[int]], np.ndarray]:
    """rows (the numbers of their examples) and row_splits [K+1] with empty rows at the end of each micro-batch."""
    counts, padded, splits = row_counts(rows_per_micro_batch), [], [0]
    for first, end in zip(row_splits[:-1], row_splits[1:]):
        count = counts[bisect.bisect_left(counts, end - first)]
        padded += rows[first:end] + [[] for _ in range(count - (end - first))]
        splits.append(len(padded))
    return padded, np.array(splits)
