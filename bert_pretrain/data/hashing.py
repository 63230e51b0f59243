"""Integer hashes as random numbers without state: the order of the records and their masks are functions of a key.

NumPy's generators are not used because their streams may change from version to version.
"""

from __future__ import annotations

from typing import Union

import numpy as np


def splitmix64(state: np.ndarray) -> np.ndarray:
    """One output for each uint64 state (Steele, Lea and Flood 2014, https://prng.di.unimi.it/splitmix64.c)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def hash_words(*words: Union[int, np.ndarray]) -> np.ndarray:
    """[1] or [E] uint64: a hash of words, each an integer below 2**64 or an array [E] of them."""
    state = np.zeros([1], np.uint64)
    for word in words:
        state = splitmix64(state ^ np.asarray(word, np.uint64))
    return state
