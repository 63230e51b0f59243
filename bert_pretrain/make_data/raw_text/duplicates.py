"""What documents are compared by: a hash of the words for equal ones, a MinHash signature for nearly equal ones.

Broder 1997, "On the resemblance and containment of documents".
"""

from __future__ import annotations

import hashlib
import inspect
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_pretrain.make_data.raw_text.decoding import need

NUM_BANDS, BAND_WIDTH = 16, 8  # hashes of a signature; documents of similarity 0.8 share a band in 95 of 100 cases
NUM_HASHES = NUM_BANDS * BAND_WIDTH
_SHINGLE = 5  # words
_SAMPLED = 4  # one of so many shingles is looked at, always the same ones
_MIN_SHINGLES = 16  # sampled; shorter documents can only be equal, not nearly equal
_SEED = 1
FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Signer:
    """Makes what documents are compared by."""

    def __init__(self) -> None:
        min_hash = need("datasketch", "the search for duplicates").MinHash
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
        mixed = (mixed ^ words_hashed[place : place + count]) * FACTOR  # modulo 2**64
        mixed ^= mixed >> np.uint64(29)
    hashes = np.unique(mixed >> np.uint64(32))
    return hashes[hashes % np.uint64(_SAMPLED) == 0]


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """A hash of each band of signatures [D, NUM_HASHES], uint64 [NUM_BANDS, D]; 0 where there is no signature."""
    bands = signatures.reshape(-1, NUM_BANDS, BAND_WIDTH)
    keys = np.zeros(bands.shape[:2], np.uint64)
    for column in range(BAND_WIDTH):
        keys = (keys ^ bands[:, :, column].astype(np.uint64)) * FACTOR
        keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(keys.T)
