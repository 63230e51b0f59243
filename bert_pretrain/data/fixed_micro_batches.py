"""Cuts an update into micro-batches that do not depend on the number of ranks (--rank_invariant).

An update's G examples are divided among K micro-batches by record size, as rank_balance.py divides them among ranks.
Rank r of W has micro-batches r * K / W to (r + 1) * K / W - 1. Each is packed by itself.
"""

from __future__ import annotations

import numpy as np

from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.rank_balance import divide
from bert_pretrain.data.schema import Batch, Examples


def examples_for_rank(sizes: np.ndarray, num_micro_batches: int, rank: int, num_ranks: int) -> np.ndarray:
    """[G / W] indices into the record sizes [G]: the examples of a rank's micro-batches, one after the other.

    num_micro_batches is K, over all ranks; it divides G, and W divides it.
    """
    per_rank = num_micro_batches // num_ranks
    return divide(sizes, num_micro_batches)[rank * per_rank : (rank + 1) * per_rank].reshape(-1)


def build_micro_batches(examples: Examples, num_micro_batches: int, pack: bool, few_shapes: bool = False) -> Batch:
    """Lays E examples into num_micro_batches of E / num_micro_batches examples, in the given order.

    Rows are as wide as the widest micro-batch needs; forward.narrow gives each micro-batch its own width back. With
    few_shapes (row_shapes.py) all are as wide as the records.
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
