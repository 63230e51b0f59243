"""Divides an update's examples among the ranks: the same number for each, and about as many tokens.

All ranks wait for the slowest, and examples differ in length. The division does not change the update, which is a sum
over all ranks. Lengths are unknown before the examples are read, but record sizes are known, and the varint of a token
id is longer than that of padding's zero, so sizes give the lengths to within a few tokens.
"""

from __future__ import annotations

import numpy as np


def records_for_rank(sizes: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """[G / W] ascending indices into the record sizes [G]: the examples of `rank`. W divides G. Deterministic."""
    return divide(sizes, num_ranks)[rank]


def divide(sizes: np.ndarray, num_parts: int) -> np.ndarray:
    """[N, G / N] indices into the record sizes [G]: the examples of each of N parts, ascending. N divides G.

    Greedy: from the largest on, N examples at a time, the largest of them to the part with the smallest sum so far.
    """
    rounds = np.argsort(-sizes, kind="stable").reshape(-1, num_parts)
    totals = np.zeros([num_parts], np.int64)
    parts = np.empty_like(rounds)
    for taken, dealt in zip(parts, rounds):
        smallest_first = np.argsort(totals, kind="stable")
        totals[smallest_first] += sizes[dealt]
        taken[smallest_first] = dealt
    return np.sort(parts.T, axis=1)
