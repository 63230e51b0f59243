"""Duplicates among all documents, with memory for one band of their signatures at a time.

Signatures are cut into bands; documents that agree in a band are compared by their estimated similarity (Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data.raw_text.document_table import SIGNATURE_BYTES
from bert_pretrain.make_data.raw_text.duplicates import NUM_BANDS, NUM_HASHES, band_keys

SIMILARITY = 0.8  # Jaccard similarity of two documents' shingles from which they are nearly equal
FILES = ("signatures.all", "keys.all")  # made in documents/
_AT_ONCE = 1 << 14  # signatures in memory, 8 MB
_MAX_COMPARED = 1_000  # in a group of one key, a document is compared with so many that stay; bounds the time


class Duplicates(NamedTuple):
    """D documents: for each the earlier one that it repeats, or -1, and how similar they are."""

    original: np.ndarray  # [D] int64
    similarity: np.ndarray  # [D] float32; 1 for equal ones


class SignatureFiles:
    """The signatures of D documents in a file, and their bands' keys in another, a band after the other."""

    def __init__(self, directory: str, blocks: Iterable[np.ndarray], num_documents: int) -> None:
        """Writes both files; blocks are the signatures, uint32 [some, NUM_HASHES], in order."""
        self._num_documents = num_documents
        self._path, self._keys_path = (os.path.join(directory, name) for name in FILES)
        start = 0
        with open(self._path, "wb") as signatures, open(self._keys_path, "wb") as keys:
            for block in blocks:
                signatures.write(block.tobytes())
                for band, values in enumerate(band_keys(block)):
                    keys.seek(8 * (band * num_documents + start))
                    keys.write(values.tobytes())
                start += len(block)
        assert start == num_documents, (start, num_documents)

    def groups(self, is_wanted: np.ndarray) -> Iterator[np.ndarray]:
        """Numbers of wanted documents with one key in a band, in their order, band by band.

        is_wanted [D] may change between bands.
        """
        for band in range(NUM_BANDS):
            keys = np.fromfile(self._keys_path, np.uint64, self._num_documents, offset=8 * band * self._num_documents)
            numbers = np.flatnonzero(is_wanted & (keys != 0))
            keys = keys[numbers]
            order = np.argsort(keys, kind="stable")
            ends = np.concatenate([np.flatnonzero(np.diff(keys[order])) + 1, [len(order)]])
            starts = np.concatenate([[0], ends[:-1]])
            for group in np.flatnonzero(ends - starts > 1):
                yield numbers[order[starts[group] : ends[group]]]

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Signatures of some documents, uint32 [len(numbers), NUM_HASHES]."""
        with open(self._path, "rb") as file:
            content = b"".join(os.pread(file.fileno(), SIGNATURE_BYTES, SIGNATURE_BYTES * n) for n in numbers.tolist())
        return np.frombuffer(content, np.uint32).reshape(-1, NUM_HASHES)


def find(hashes: np.ndarray, files: SignatureFiles) -> Duplicates:
    """Duplicates among documents with hashes uint64 [D]: of two nearly equal ones the later one.

    What repeats a duplicate is one, too. Memory: about 60 bytes a document.
    """
    found = Duplicates(np.full(len(hashes), -1, np.int64), np.zeros(len(hashes), np.float32))
    _mark_equal(hashes, found)
    is_single = found.original < 0
    for members in files.groups(is_single):
        _compare(members[is_single[members]], files, found)
        is_single[members] = found.original[members] < 0
    return _resolved(found, files)


def similar_to(chosen: np.ndarray, hashes: np.ndarray, files: SignatureFiles) -> np.ndarray:
    """Whether each document equals or nearly equals a chosen one, but is not chosen; bool [D], like chosen."""
    found = np.isin(hashes, hashes[chosen]) & ~chosen
    for members in files.groups(np.ones(len(hashes), bool)):
        if not chosen[members].any():
            continue
        rows = files.read(members[chosen[members]])
        for start in range(0, len(members), _AT_ONCE):
            others = members[start : start + _AT_ONCE]
            others = others[~chosen[others] & ~found[others]]
            signatures = files.read(others)
            for row in rows:
                found[others] |= (signatures == row).mean(axis=1) >= SIMILARITY
    return found


def _mark_equal(hashes: np.ndarray, found: Duplicates) -> None:
    order = np.argsort(hashes, kind="stable")  # of equal hashes the first document comes first
    is_repeat = hashes[order[1:]] == hashes[order[:-1]]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(1, len(order))))
    repeats = np.flatnonzero(is_repeat)
    found.original[order[repeats + 1]] = order[first[repeats]]
    found.similarity[order[repeats + 1]] = 1.0


def _compare(members: np.ndarray, files: SignatureFiles, found: Duplicates) -> None:
    """Compares each document of a group with the earlier ones of it that stay."""
    stay: list[tuple[int, np.ndarray]] = []
    for start in range(0, len(members), _AT_ONCE):
        numbers = members[start : start + _AT_ONCE]
        rows = files.read(numbers)
        place = 0
        while len(numbers):
            if place == len(stay):
                if place == _MAX_COMPARED:
                    break
                stay.append((int(numbers[0]), rows[0]))
                numbers, rows = numbers[1:], rows[1:]
            number, row = stay[place]
            place += 1
            similarity = (rows == row).mean(axis=1)
            is_near = similarity >= SIMILARITY
            if is_near.any():
                found.original[numbers[is_near]] = number
                found.similarity[numbers[is_near]] = similarity[is_near]
                numbers, rows = numbers[~is_near], rows[~is_near]


def _resolved(found: Duplicates, files: SignatureFiles) -> Duplicates:
    """Names the document that stays, where the original turned out to be a duplicate itself, and its similarity."""
    original, linked = found.original, found.original.copy()
    while True:
        chained = np.flatnonzero(original >= 0)
        chained = chained[original[original[chained]] >= 0]
        if not len(chained):
            break
        original[chained] = original[original[chained]]
    changed = np.flatnonzero(original != linked)
    for start in range(0, len(changed), _AT_ONCE):
        some = changed[start : start + _AT_ONCE]
        found.similarity[some] = (files.read(some) == files.read(original[some])).mean(axis=1)
    return found
