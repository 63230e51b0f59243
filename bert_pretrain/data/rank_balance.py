"""Which examples of an update each rank takes: as many as the others and about as many tokens.

All ranks wait for the one that has most to compute, and examples differ in length. Which of them a rank takes does not
change the update, a sum over all ranks. Lengths are not known before the examples are read, but sizes of records are:
a token's id takes a byte more than padding's zero, so sizes tell lengths to a few tokens.
"""

from __future__ import annotations

import numpy as np


def share(sizes: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """Ascending indices of the G / W of G examples that rank takes; W divides G. Deterministic.

    From the largest on, W examples at a time are dealt, the largest of them to the rank with the least so far.
    """
    rounds = np.argsort(-sizes, kind="stable").reshape(-1, num_ranks)
    totals = np.zeros([num_ranks], np.int64)
    taken = []
    for dealt in rounds:
        ranks = np.argsort(totals, kind="stable")  # least first
        totals[ranks] += sizes[dealt]
        taken.append(dealt[ranks == rank][0])
    return np.sort(taken)
