"""Duplicates among documents: a hash of each for equal ones, a MinHash signature for nearly equal ones.

Broder 1997, "On the resemblance and containment of documents". Signatures are cut into bands; documents that agree in a
band are compared by their estimated similarity.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.make_data.raw_text.decoding import need

SIMILARITY = 0.8  # Jaccard similarity of two documents' shingles from which they are nearly equal
NUM_BANDS, BAND_WIDTH = 16, 8  # hashes of a signature; documents of similarity 0.8 share a band in 95 of 100 cases
_NUM_HASHES = NUM_BANDS * BAND_WIDTH
_SHINGLE = 5  # words
_SAMPLED = 4  # one of so many shingles is looked at, always the same ones
_MIN_SHINGLES = 16  # sampled; shorter documents can only be equal, not nearly equal
_SEED = 1
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Signer:
    """Makes what documents are compared by."""

    def __init__(self) -> None:
        min_hash = need("datasketch", "the search for duplicates").MinHash
        self._empty: Any = min_hash(_NUM_HASHES, _SEED, hashfunc=int)

    def sign(self, document: Sequence[str]) -> tuple[int, np.ndarray]:
        """A hash of the words of a document, and its signature, uint32 [_NUM_HASHES]; zeros where it is too short."""
        words = " ".join(document).lower().split()
        digest = hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=8).digest()
        shingles = _shingles(words)
        if len(shingles) < _MIN_SHINGLES:
            return int.from_bytes(digest, "little"), np.zeros(_NUM_HASHES, np.uint32)
        signature = self._empty.copy()
        signature.update_batch(shingles.tolist())
        return int.from_bytes(digest, "little"), signature.hashvalues.astype(np.uint32)


def _shingles(words: list[str]) -> np.ndarray:
    """Hashes of the sampled runs of words, uint64 [N] below 2**32."""
    words_hashed = np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in words], np.uint64)
    count = len(words) - _SHINGLE + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    mixed = np.zeros(count, np.uint64)
    for place in range(_SHINGLE):
        mixed = (mixed ^ words_hashed[place : place + count]) * _FACTOR  # modulo 2**64
        mixed ^= mixed >> np.uint64(29)
    hashes = np.unique(mixed >> np.uint64(32))
    return hashes[hashes % np.uint64(_SAMPLED) == 0]


class Duplicates(NamedTuple):
    """D documents: for each the earlier one that it repeats, or -1, and how similar they are."""

    original: np.ndarray  # [D] int64
    similarity: np.ndarray  # [D] float32; 1 for equal ones


def find(hashes: np.ndarray, signatures: np.ndarray) -> Duplicates:
    """Duplicates in documents with hashes uint64 [D] and signatures uint32 [NUM_BANDS, D, BAND_WIDTH].

    The signatures can be a memory map, of which one band is read at a time. A document is compared with earlier ones
    that are no duplicates themselves. Memory: about 60 bytes a document.
    """
    found = Duplicates(np.full(len(hashes), -1, np.int64), np.zeros(len(hashes), np.float32))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first_of_each = first[inverse.reshape(-1)]
    repeats = np.flatnonzero(first_of_each < np.arange(len(hashes)))
    found.original[repeats], found.similarity[repeats] = first_of_each[repeats], 1.0
    for band in signatures:
        for members in _groups(_keys(band)):
            _compare(members, signatures, found)
    return _resolved(found)


def _keys(band: np.ndarray) -> np.ndarray:
    """A hash of each row of a band [D, BAND_WIDTH], uint64 [D]; 0 where there is no signature."""
    keys = np.zeros(len(band), np.uint64)
    for column in range(BAND_WIDTH):
        keys = (keys ^ band[:, column].astype(np.uint64)) * _FACTOR
        keys ^= keys >> np.uint64(29)
    return keys


def _groups(keys: np.ndarray) -> Iterable[np.ndarray]:
    """Numbers of documents with one key, in their order."""
    order = np.argsort(keys, kind="stable")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(keys[order])) + 1, [len(order)]])
    for group in np.flatnonzero(np.diff(bounds) > 1):
        members = order[bounds[group] : bounds[group + 1]]
        if keys[members[0]] != 0:
            yield members


def _compare(members: np.ndarray, signatures: np.ndarray, found: Duplicates) -> None:
    """Compares each document of a group with the first that is left, then the rest with the next one."""
    members = members[found.original[members] < 0]
    while len(members) > 1:
        first, members = members[0], members[1:]
        similarity = (signatures[:, members] == signatures[:, first, None]).mean(axis=(0, 2))
        is_near = similarity >= SIMILARITY
        found.original[members[is_near]] = first
        found.similarity[members[is_near]] = similarity[is_near]
        members = members[~is_near]


def _resolved(found: Duplicates) -> Duplicates:
    """Names the document that stays, where the original turned out to be a duplicate itself."""
    original = found.original
    while True:
        further = original[original]
        chained = np.flatnonzero((original >= 0) & (further >= 0))
        if not len(chained):
            return found
        original[chained] = further[chained]
