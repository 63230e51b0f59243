"""Which documents are held out for evaluation."""

from __future__ import annotations

import random

import numpy as np

_SEED, _SEED_STEP = 12_345, 13  # of MLPerf's choice of held-out articles
_MAX_SHARE = 10  # at most one of so many documents, and of so many bytes


def by_size(keys: np.ndarray, num_bytes: np.ndarray, wanted: int) -> np.ndarray:
    """Numbers of the held-out documents, sorted; D documents have keys [D] uint64 and sizes [D].

    At most `wanted`, a tenth of the documents and a tenth of all bytes; at least one if any are wanted. They are those
    of the smallest keys, hashes of their text: each document has the same chance, whatever its file and the others.
    ValueError for a single document.
    """
    if not wanted:
        return np.zeros(0, np.int64)
    if len(keys) < 2:
        raise ValueError(
            "--input_file: the text is one document, of which none can be held out; give more files, name "
            "--documents=blank_line, or --num_held_out=0"
        )
    order = np.argsort(keys, kind="stable")
    limit = max(1, min(wanted, len(keys) // _MAX_SHARE))
    total = num_bytes.sum() // _MAX_SHARE
    # A document that would make it too much is passed over.
    chosen: list[int] = []
    used = 0
    for number in order.tolist():
        if used + num_bytes[number] <= total:
            chosen.append(number)
            used += int(num_bytes[number])
            if len(chosen) == limit:
                break
    return np.array(sorted(chosen) or [int(np.argmin(num_bytes))], np.int64)


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
