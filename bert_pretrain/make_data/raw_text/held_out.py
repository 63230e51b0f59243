"""Which documents are held out for evaluation."""

from __future__ import annotations

import random
from typing import NamedTuple, Optional

import numpy as np

_SEED, _SEED_STEP = 12_345, 13  # of MLPerf's choice of held-out articles
MAX_SHARE = 10  # at most one of so many documents, and of so many bytes


class HeldOut(NamedTuple):
    """Numbers of the held-out documents, sorted, int64; or the one whose last sentences are held out."""

    whole: np.ndarray
    divided: Optional[int]


def by_size(keys: np.ndarray, num_bytes: np.ndarray, wanted: int) -> HeldOut:
    """Draws over D documents with keys [D] uint64, hashes of their text, and sizes [D].

    At most `wanted`, a tenth of the documents and a tenth of all bytes. They are those of the smallest keys, so that
    each document has the same chance, whatever its file and the others; what would make it too much is passed over.
    Where even the smallest document is more than a tenth of the text, it is held out if it is less than two tenths,
    else the last sentences of the largest document are.
    """
    none = np.zeros(0, np.int64)
    if not wanted:
        return HeldOut(none, None)
    limit = max(1, min(wanted, len(keys) // MAX_SHARE))
    total = int(num_bytes.sum()) // MAX_SHARE
    chosen: list[int] = []
    used = 0
    for number in np.argsort(keys, kind="stable").tolist():
        if used + int(num_bytes[number]) <= total:
            chosen.append(number)
            used += int(num_bytes[number])
            if len(chosen) == limit:
                break
    if chosen:
        return HeldOut(np.array(sorted(chosen), np.int64), None)
    smallest = int(np.argmin(num_bytes))
    if int(num_bytes[smallest]) < 2 * total:
        return HeldOut(np.array([smallest], np.int64), None)
    return HeldOut(none, int(np.argmax(num_bytes)))


def end_of_training(num_sentences: int) -> int:
    """How many sentences of a divided document train; the others, a tenth and at least one, are held out."""
    return num_sentences - max(1, num_sentences // MAX_SHARE)


def by_mlperf(number: int, num_files: int, wanted: int, num_documents: int, path: str) -> np.ndarray:
    """Numbers of a file's held-out documents, by the rule of MLPerf's pick_eval_samples.py and split scripts.

    Each file holds out an equal share, drawn with a seed that depends on the file's number.
    """
    own = (number + 1) * wanted // num_files - number * wanted // num_files
    if own and own >= num_documents:
        raise ValueError(
            f"{path}: {num_documents} articles, and {own} of each file are to be held out; "
            f"lower --num_held_out {wanted}"
        )
    rng = random.Random(_SEED + _SEED_STEP * number)
    chosen: set[int] = set()
    while len(chosen) < own:
        chosen.add(int(rng.random() * num_documents))
    return np.array(sorted(chosen), np.int64)
