"""The examples of an update laid into rows: several examples a row, or one.

Packing changes nothing but time: it uses the update's own examples, every one once, and whatever the rows are, the
sums over examples and masked tokens stay the same.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.schema import Batch, Examples

WIDTH_MULTIPLE = 64  # rows end at a multiple of this, so that shapes repeat and matrix kernels have no ragged edge
_MAX_SUBSET_SEARCH = 256  # examples; beyond, best fit already comes within a row in two hundred, and time counts


class _Layout(NamedTuple):
    """Where examples go: lines of example numbers, one line a row of `width` tokens."""

    rows: list[list[int]]
    width: int


def lay_out(examples: Examples, rows_per_micro_batch: int, pack: bool) -> Batch:
    """Lays E examples into rows, and the rows into ceil(R / rows_per_micro_batch) micro-batches of even size.

    Rows are as wide as the fullest, rounded up to WIDTH_MULTIPLE, at most S. Without `pack` each example has a row of
    its own, in the given order. Deterministic. Examples are valid (see validation.py).
    """
    lengths = np.count_nonzero(examples.input_mask, axis=1)
    capacity = examples.input_ids.shape[1]
    layout = pack_rows(lengths.tolist(), capacity) if pack else one_a_row(lengths.tolist(), capacity)
    return _fill(examples, lengths, layout, rows_per_micro_batch)


def one_a_row(lengths: list[int], capacity: int) -> _Layout:
    """Each example in its own row, in the given order."""
    return _Layout([[number] for number in range(len(lengths))], _round_up(max(lengths), capacity))


def pack_rows(lengths: list[int], capacity: int) -> _Layout:
    """Rows of at most `capacity` tokens with as little padding as a short search over their width finds."""
    best = _pack_at(lengths, capacity)
    for width in range(_round_up(max(lengths), capacity), best.width, WIDTH_MULTIPLE):
        if _least_rows(lengths, width) * width < _area(best):
            best = min(best, _pack_at(lengths, width), key=_area)
    return best


def _pack_at(lengths: list[int], capacity: int) -> _Layout:
    """Rows of at most `capacity` tokens: best fit, and where that misses the least possible, subset sums."""
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
    """Best fit decreasing: each example, longest first, goes where it leaves the least room."""
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
    """Each row takes the longest example left and, of the others, a subset that fills it best.

    The minimum bin slack heuristic of Gupta and Ho (1999), with the subset found exactly: bit t of an integer says
    that the examples looked at so far can add up to t tokens.
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
            if sums[-1] >> room:  # the row can be filled to its end
                break
        target = sums[-1].bit_length() - 1
        row = [longest]
        looked_at = others[: len(sums) - 1]
        for before, number in zip(reversed(sums[:-1]), reversed(looked_at)):
            if not before >> target & 1:  # only this one can have brought the sum about
                row.append(number)
                target -= lengths[number]
        rows.append(row)
        taken = set(row)
        left = [number for number in left if number not in taken]
    return rows


def _fill(examples: Examples, lengths: np.ndarray, layout: _Layout, rows_per_micro_batch: int) -> Batch:
    order = np.concatenate(layout.rows)  # [E] example numbers, row by row
    examples_per_row = np.array([len(row) for row in layout.rows])
    lengths = lengths[order]
    tokens_before = np.cumsum(lengths) - lengths  # [E] in the examples' tokens, end to end
    first_of_row = np.cumsum(examples_per_row) - examples_per_row  # [R] in the examples
    # [E] flat position of each example's [CLS]: start of its row, plus what stands before it in the row.
    row_starts = np.arange(len(layout.rows)) * layout.width - tokens_before[first_of_row]
    starts = np.repeat(row_starts, examples_per_row) + tokens_before
    numbers_in_row = np.arange(1, len(order) + 1) - np.repeat(first_of_row, examples_per_row)

    rows = np.zeros([4, len(layout.rows), layout.width], np.int32)  # the fields [R, S], in Batch's order
    token_ids, segment_ids, position_ids, example_ids = rows.reshape(4, -1)
    columns = np.arange(layout.width, dtype=np.int32)
    for number, start, length, number_in_row in zip(
        order.tolist(), starts.tolist(), lengths.tolist(), numbers_in_row.tolist()
    ):  # slices of whole examples are cheaper than indices of all tokens
        token_ids[start : start + length] = examples.input_ids[number, :length]
        segment_ids[start : start + length] = examples.segment_ids[number, :length]
        position_ids[start : start + length] = columns[:length]
        example_ids[start : start + length] = number_in_row

    weights = examples.masked_lm_weights[order]
    used_slots = weights > 0  # [E, P]
    row_splits = _even_splits(len(layout.rows), rows_per_micro_batch)
    example_splits = np.append(0, np.cumsum(examples_per_row))[row_splits]
    masked_splits = np.append(0, np.cumsum(np.count_nonzero(used_slots, axis=1)))[example_splits]
    return Batch(
        *rows,
        masked_positions=(starts[:, None] + examples.masked_lm_positions[order])[used_slots].astype(np.int32),
        masked_ids=examples.masked_lm_ids[order][used_slots].astype(np.int32),
        masked_weights=weights[used_slots].astype(np.float32),
        cls_positions=starts.astype(np.int32),
        next_sentence_labels=examples.next_sentence_labels[order].astype(np.int32),
        row_splits=row_splits.astype(np.int32),
        masked_splits=masked_splits.astype(np.int32),
        example_splits=example_splits.astype(np.int32),
    )


def _even_splits(num_rows: int, rows_per_micro_batch: int) -> np.ndarray:
    """[K+1] row numbers between which the micro-batches lie; their sizes differ by one at the most."""
    num_micro_batches = -(-num_rows // rows_per_micro_batch)
    return np.arange(num_micro_batches + 1) * num_rows // num_micro_batches
