"""Duplicates among documents: equal ones by a hash of their words, nearly equal ones by MinHash signatures.

Signatures: Broder 1997, "On the resemblance and containment of documents". They are cut into bands, and documents that
agree in a band are compared by their estimated similarity: Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", section 3.4. Memory is needed for one band of all signatures at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.make_data.text.reading import require_library
from bert_pretrain.system.files import open_itself

NUM_BANDS, BAND_WIDTH = 16, 8  # hashes of a signature; documents of similarity 0.8 share a band in 95 of 100 cases
NUM_HASHES = NUM_BANDS * BAND_WIDTH
_SIGNATURE_BYTES = 4 * NUM_HASHES
SIMILARITY = 0.8  # Jaccard similarity of two documents' shingles from which they are nearly equal
_SHINGLE = 5  # words
_SAMPLED = 4  # one of so many shingles is looked at, always the same ones
_MIN_SHINGLES = 16  # sampled; shorter documents can only be equal, not nearly equal
_SEED = 1  # of the hashes
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # of a multiplicative hash: 2**64 / the golden ratio
SIGNATURE_FILES = ("signatures.all", "keys.all")  # made in documents/
_AT_ONCE = 1 << 14  # signatures in memory, 8 MB
_MAX_COMPARED = 1_000  # in a group of one key, a document is compared with so many that stay; bounds the time


class Signer:
    """Makes what documents are compared by."""

    def __init__(self) -> None:
        min_hash = require_library("datasketch", "the search for duplicates").MinHash
        # datasketch 2 hashes by another scheme unless it is told to hash as version 1, the last one for Python 3.8.
        scheme = {"scheme": "legacy"} if "scheme" in inspect.signature(min_hash.__init__).parameters else {}
        self._empty: Any = min_hash(NUM_HASHES, _SEED, hashfunc=int, **scheme)

    def sign(self, document: Sequence[str]) -> tuple[int, np.ndarray]:
        """A hash of the words of a document, and its signature, uint32 [NUM_HASHES]; zeros where it is too short."""
        words = " ".join(document).lower().split()
        digest = hashlib.blake2b(" ".join(words).encode("utf-8", "replace"), digest_size=8).digest()
        shingles = _shingles(words)
        if len(shingles) < _MIN_SHINGLES:
            return int.from_bytes(digest, "little"), np.zeros(NUM_HASHES, np.uint32)
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


class DuplicateDocuments(NamedTuple):
    """D documents: for each the earlier one that it repeats, or -1, and how similar they are."""

    original: np.ndarray  # [D] int64
    similarity: np.ndarray  # [D] float32; 1 for equal ones


class SignatureFiles:
    """The signatures of D documents in a file, and their bands' keys in another, a band after the other."""

    def __init__(self, directory: str, blocks: Iterable[np.ndarray], num_documents: int) -> None:
        """Writes both files; blocks are the signatures, uint32 [some, NUM_HASHES], in order."""
        self._num_documents = num_documents
        self._path, self._keys_path = (os.path.join(directory, name) for name in SIGNATURE_FILES)
        start = 0
        with contextlib.ExitStack() as stack:
            signatures, keys = (
                stack.enter_context(open(path, "wb", opener=open_itself)) for path in (self._path, self._keys_path)
            )
            for block in blocks:
                signatures.write(block.tobytes())
                for band, values in enumerate(_band_keys(block)):
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
            content = b"".join(
                os.pread(file.fileno(), _SIGNATURE_BYTES, _SIGNATURE_BYTES * n) for n in numbers.tolist()
            )
        return np.frombuffer(content, np.uint32).reshape(-1, NUM_HASHES)


def _band_keys(signatures: np.ndarray) -> np.ndarray:
    """A hash of each band of signatures [D, NUM_HASHES], uint64 [NUM_BANDS, D]; 0 where there is no signature."""
    bands = signatures.reshape(-1, NUM_BANDS, BAND_WIDTH)
    keys = np.zeros(bands.shape[:2], np.uint64)
    for column in range(BAND_WIDTH):
        keys = (keys ^ bands[:, :, column].astype(np.uint64)) * _FACTOR
        keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(keys.T)


def find_duplicate_documents(hashes: np.ndarray, files: SignatureFiles) -> DuplicateDocuments:
    """Duplicates among documents with hashes uint64 [D]: of two nearly equal ones the later one.

    What repeats a duplicate is one, too. Memory: about 60 bytes a document.
    """
    found = DuplicateDocuments(np.full(len(hashes), -1, np.int64), np.zeros(len(hashes), np.float32))
    _mark_equal(hashes, found)
    is_single = found.original < 0
    for members in files.groups(is_single):
        _compare(members[is_single[members]], files, found)
        is_single[members] = found.original[members] < 0
    return _resolved(found, files)


def _mark_equal(hashes: np.ndarray, found: DuplicateDocuments) -> None:
    order = np.argsort(hashes, kind="stable")  # of equal hashes the first document comes first
    is_repeat = hashes[order[1:]] == hashes[order[:-1]]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(1, len(order))))
    repeats = np.flatnonzero(is_repeat)
    found.original[order[repeats + 1]] = order[first[repeats]]
    found.similarity[order[repeats + 1]] = 1.0


def _compare(members: np.ndarray, files: SignatureFiles, found: DuplicateDocuments) -> None:
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


def _resolved(found: DuplicateDocuments, files: SignatureFiles) -> DuplicateDocuments:
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


def find_similar_to(chosen: np.ndarray, hashes: np.ndarray, files: SignatureFiles) -> np.ndarray:
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
