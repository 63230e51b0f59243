"""Lays the examples of an update into rows, several examples a row or one, and the rows into micro-batches.

Packing changes only the time: each example of the update is used once, so all sums over examples and masked tokens
stay the same. (Krell et al. 2021, arXiv:2107.02027, pack across a whole data set, which changes the batches.)
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.schema import Batch, Examples

WIDTH_MULTIPLE = 64  # of the row width, so that few different shapes occur and matrix kernels have full blocks
_MAX_SUBSET_SEARCH = 256  # examples; for more, best fit needs at most one row in two hundred too many, and is faster
_MOST_SHAPES, _RATIO = 8, 7 / 8


class _Layout(NamedTuple):
    """The numbers of the examples of each row, and the width of the rows in tokens."""

    rows: list[list[int]]
    width: int


def build_batch(examples: Examples, rows_per_micro_batch: int, pack: bool, few_shapes: bool = False) -> Batch:
    """Lays E examples into rows, and the rows into ceil(R / rows_per_micro_batch) micro-batches of even size.

    Rows are as wide as the fullest, rounded up to WIDTH_MULTIPLE, at most S. Without `pack` each example has a row of
    its own, in the given order. Deterministic. The examples must be valid (schema.py). few_shapes: see
    add_empty_rows.
    """
    lengths = np.count_nonzero(examples.input_mask, axis=1)
    capacity = examples.input_ids.shape[1]
    arrange = (_pack_at if few_shapes else pack_rows) if pack else one_a_row
    layout = arrange(lengths.tolist(), capacity)
    row_splits = _even_splits(len(layout.rows), rows_per_micro_batch)
    if few_shapes:
        rows, row_splits = add_empty_rows(layout.rows, row_splits, rows_per_micro_batch)
        layout = _Layout(rows, capacity)
    return _fill(examples, lengths, layout, row_splits)


def one_a_row(lengths: list[int], capacity: int) -> _Layout:
    """Each example in its own row, in the given order."""
    return _Layout([[number] for number in range(len(lengths))], _round_up(max(lengths), capacity))


def pack_rows(lengths: list[int], capacity: int) -> _Layout:
    """Rows of at most `capacity` tokens; of several widths, the one with the least padding."""
    best = _pack_at(lengths, capacity)
    for width in range(_round_up(max(lengths), capacity), best.width, WIDTH_MULTIPLE):
        if _least_rows(lengths, width) * width < _area(best):
            best = min(best, _pack_at(lengths, width), key=_area)
    return best


def _pack_at(lengths: list[int], capacity: int) -> _Layout:
    """Rows of at most `capacity` tokens: by best fit, and where that needs more rows than the bound, by subset sums."""
    rows = _best_fit(lengths, capacity)
    if _least_rows(lengths, capacity) < len(rows) and len(lengths) <= _MAX_SUBSET_SEARCH:
        rows = min(rows, _fullest_rows(lengths, capacity), key=len)
    fullest = max(sum(lengths[number] for number in row) for row in rows)
    return _Layout(rows, _round_up(fullest, capacity))


def _area(layout: _Layout) -> int:
    return len(layout.rows) * layout.width


def _least_rows(lengths: list[int], capacity: int) -> int:
    return -(-sum(lengths) // capacity)


def _round_up(length: int, capacity: int) -> int:
    return min(capacity, -(-length // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)


def _longest_first(lengths: list[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))


def _best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing: each example, longest first, goes into the row in which it leaves the least room."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), ascending
    for number in _longest_first(lengths):
        place = bisect.bisect_left(room, (lengths[number], -1))
        if place < len(room):
            free, row = room.pop(place)
            rows[row].append(number)
        else:
            free, row = capacity, len(rows)
            rows.append([number])
        bisect.insort(room, (free - lengths[number], row))
    return rows


def _fullest_rows(lengths: list[int], capacity: int) -> list[list[int]]:
    """Each row takes the longest remaining example and the subset of the others that fills it best.

    The minimum bin slack heuristic of Gupta and Ho (1999). Subset sums are exact: bit t of an integer is set if some
    of the examples considered so far add up to t tokens.
    """
    left = _longest_first(lengths)
    rows = []
    while left:
        longest, others = left[0], left[1:]
        room = capacity - lengths[longest]
        within_room = (1 << (room + 1)) - 1
        sums = [1]
        for number in others:
            sums.append((sums[-1] | sums[-1] << lengths[number]) & within_room)
            if sums[-1] >> room:  # the row can be filled completely
                break
        target = sums[-1].bit_length() - 1
        row = [longest]
        considered = others[: len(sums) - 1]
        for before, number in zip(reversed(sums[:-1]), reversed(considered)):
            if not before >> target & 1:  # the sum needs this example
                row.append(number)
                target -= lengths[number]
        rows.append(row)
        taken = set(row)
        left = [number for number in left if number not in taken]
    return rows


def _fill(examples: Examples, lengths: np.ndarray, layout: _Layout, row_splits: np.ndarray) -> Batch:
    order = np.concatenate(layout.rows).astype(np.int64)  # [E] example numbers, row by row
    examples_per_row = np.array([len(row) for row in layout.rows])  # [R]
    starts = _starts(lengths[order], examples_per_row, layout.width)  # [E]
    weights = examples.masked_lm_weights[order]
    is_used = weights > 0  # [E, P]
    example_splits = np.append(0, np.cumsum(examples_per_row))[row_splits]
    masked_splits = np.append(0, np.cumsum(np.count_nonzero(is_used, axis=1)))[example_splits]
    return Batch(
        *_rows(examples, order, lengths[order], starts, examples_per_row, layout.width),
        masked_positions=(starts[:, None] + examples.masked_lm_positions[order])[is_used].astype(np.int32),
        masked_ids=examples.masked_lm_ids[order][is_used].astype(np.int32),
        masked_weights=weights[is_used].astype(np.float32),
        cls_positions=starts.astype(np.int32),
        next_sentence_labels=examples.next_sentence_labels[order].astype(np.int32),
        row_splits=row_splits.astype(np.int32),
        masked_splits=masked_splits.astype(np.int32),
        example_splits=example_splits.astype(np.int32),
    )


def _starts(lengths: np.ndarray, examples_per_row: np.ndarray, width: int) -> np.ndarray:
    """[E] flat position of each example's [CLS]: the start of its row plus the tokens before it in the row."""
    tokens_before = np.cumsum(lengths) - lengths  # [E] if all examples were put end to end
    first_of_row = np.cumsum(examples_per_row) - examples_per_row  # [R] example numbers
    # An empty row's offset is not used; behind the last example it would be that of none.
    first_of_row = np.minimum(first_of_row, len(lengths) - 1)
    row_offsets = np.arange(len(examples_per_row)) * width - tokens_before[first_of_row]
    return np.repeat(row_offsets, examples_per_row) + tokens_before


def _rows(
    examples: Examples,
    order: np.ndarray,
    lengths: np.ndarray,
    starts: np.ndarray,
    examples_per_row: np.ndarray,
    width: int,
) -> np.ndarray:
    """[4, R, S] int32: token, segment, position and example ids, the first fields of a Batch."""
    rows = np.zeros([4, len(examples_per_row), width], np.int32)
    token_ids, segment_ids, position_ids, example_ids = rows.reshape(4, -1)
    first_of_row = np.cumsum(examples_per_row) - examples_per_row
    numbers_in_row = np.arange(1, len(order) + 1) - np.repeat(first_of_row, examples_per_row)
    columns = np.arange(width, dtype=np.int32)
    for number, start, length, number_in_row in zip(
        order.tolist(), starts.tolist(), lengths.tolist(), numbers_in_row.tolist()
    ):  # slices of whole examples are faster than indices of all tokens
        token_ids[start : start + length] = examples.input_ids[number, :length]
        segment_ids[start : start + length] = examples.segment_ids[number, :length]
        position_ids[start : start + length] = columns[:length]
        example_ids[start : start + length] = number_in_row
    return rows


def _even_splits(num_rows: int, rows_per_micro_batch: int) -> np.ndarray:
    """[K+1] row numbers that separate the micro-batches, whose sizes differ by at most one."""
    num_micro_batches = -(-num_rows // rows_per_micro_batch)
    return np.arange(num_micro_batches + 1) * num_rows // num_micro_batches


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


def build_micro_batches(examples: Examples, num_micro_batches: int, pack: bool, few_shapes: bool = False) -> Batch:
    """Lays E examples into num_micro_batches of E / num_micro_batches examples, in the given order.

    Rows are as wide as the widest micro-batch needs; forward.narrow_rows gives each micro-batch its own width back.
    With few_shapes all are as wide as the records.
    """
    size = len(examples.input_ids) // num_micro_batches
    starts = range(0, len(examples.input_ids), size)
    parts = [
        build_batch(Examples(*(column[i : i + size] for column in examples)), size, pack, few_shapes) for i in starts
    ]
    width = max(part.token_ids.shape[1] for part in parts)
    rows_before = np.cumsum([0, *(len(part.token_ids) for part in parts)])
    moved = [_move(part, int(before), width) for part, before in zip(parts, rows_before)]
    joined = Batch(*(np.concatenate(columns) for columns in zip(*moved)))
    return joined._replace(
        row_splits=rows_before.astype(np.int32),
        masked_splits=_splits([part.masked_ids for part in parts]),
        example_splits=_splits([part.cls_positions for part in parts]),
    )


def _move(part: Batch, rows_before: int, width: int) -> Batch:
    """The micro-batch in rows of `width`, behind rows_before rows."""
    own_width = part.token_ids.shape[1]

    def widened(rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, [(0, 0), (0, width - own_width)])

    def moved(positions: np.ndarray) -> np.ndarray:
        rows, columns = np.divmod(positions, own_width)
        return ((rows + rows_before) * width + columns).astype(np.int32)

    return part._replace(
        token_ids=widened(part.token_ids),
        segment_ids=widened(part.segment_ids),
        position_ids=widened(part.position_ids),
        example_ids=widened(part.example_ids),
        masked_positions=moved(part.masked_positions),
        cls_positions=moved(part.cls_positions),
    )


def _splits(columns: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, columns)]).astype(np.int32)
