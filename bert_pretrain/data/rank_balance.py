"""Divides an update's examples among the ranks: the same number for each, and about as many tokens.

All ranks wait for the slowest, and examples differ in length. The division does not change the update, which is a sum
over all ranks. Lengths are unknown before the examples are read, but record sizes are known, and the varint of a token
id is longer than that of padding's zero, so sizes give the lengths to within a few tokens.
"""

from __future__ import annotations

import numpy as np


def records_for_rank(sizes: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """[G / W] ascending indices into the record sizes [G]: the examples of `rank`. W divides G. Deterministic.

    Greedy: from the largest on, W examples at a time, the largest of them to the rank with the smallest sum so far.
    """
    rounds = np.argsort(-sizes, kind="stable").reshape(-1, num_ranks)
    totals = np.zeros([num_ranks], np.int64)
    taken = []
    for dealt in rounds:
        ranks = np.argsort(totals, kind="stable")  # smallest sum first
        totals[ranks] += sizes[dealt]
        taken.append(dealt[ranks == rank][0])
    return np.sort(taken)
