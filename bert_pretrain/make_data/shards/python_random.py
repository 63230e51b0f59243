"""Draws of Python's random.Random: compiled where there is a C++ compiler, else in Python, with the same results."""

from __future__ import annotations

import ctypes
import functools
import random
from array import array
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from bert_pretrain.data.masking import KEPT
from bert_pretrain.system import files
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError

_LIBRARY = NativeLibrary("python_random", [Path(__file__).with_suffix(".cc")], compile_flags=["-std=c++14"])
_MAX_IN_LIST = 1 << 16
_FUNCTIONS = {  # of python_random.cc: result, and arguments after the generator
    "DrawUniform": (ctypes.c_double, []),
    "DrawBelow": (ctypes.c_uint32, [ctypes.c_uint32]),
    "DrawOrder": (None, [ctypes.c_void_p, ctypes.c_uint32]),
    "DrawReplacements": (None, [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32]),
}


class PythonDraws(Protocol):
    """A random.Random that is seeded. Integers are below 2**32. Arrays are valid until the next call."""

    def uniform(self) -> float:
        """random()."""
        ...

    def below(self, limit: int) -> int:
        """randint(0, limit - 1)."""
        ...

    def order(self, count: int, num_used: int) -> np.ndarray:
        """The first num_used items of shuffle() of 0, 1, ... count - 1; uint32 [num_used]."""
        ...

    def replacements(self, count: int) -> np.ndarray:
        """What replaces `count` masked tokens: mask_id, KEPT or one of the entries; int32 [count]."""
        ...


def make_draws(seed: int, mask_id: int, entries: np.ndarray) -> PythonDraws:
    """The faster draws of the two that this machine can have. `entries` (int32) are what may replace a token."""
    assert entries.dtype == np.int32
    try:
        return CompiledDraws(seed, mask_id, np.ascontiguousarray(entries))
    except UnavailableError:
        return InterpretedDraws(seed, mask_id, entries)


def describe_draw_speed() -> str:
    """Why draws are slow on this machine; nothing where they are not."""
    try:
        compiled_library()
    except UnavailableError as reason:
        return f"note: {reason}, so --mode=exact draws its random numbers in Python and takes about twice the time"
    return ""


@functools.lru_cache(maxsize=1)
def compiled_library() -> ctypes.CDLL:
    """The functions of python_random.cc, compiled for this machine. UnavailableError where they cannot be."""
    path = _LIBRARY.compiled(files.cache_directory("make_data"))
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path} cannot be loaded: {error}") from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, [ctypes.c_void_p, *arguments]
    return found


class _Buffer(NamedTuple):
    """An array that compiled code writes to."""

    values: np.ndarray
    address: int  # which NumPy takes a microsecond to tell

    @classmethod
    def of(cls, size: int, dtype: Any) -> _Buffer:
        values = np.empty(size, dtype)
        return cls(values, values.ctypes.data)


class CompiledDraws(PythonDraws):
    """Draws by python_random.cc. UnavailableError where it cannot be compiled."""

    def __init__(self, seed: int, mask_id: int, entries: np.ndarray) -> None:
        *words, position = random.Random(seed).getstate()[1]
        self._generator = np.random.MT19937()
        self._generator.state = {
            "bit_generator": "MT19937",
            "state": {"key": np.array(words, np.uint32), "pos": position},
        }
        bitgen = self._generator.ctypes.bit_generator
        bound = [functools.partial(getattr(compiled_library(), name), bitgen) for name in _FUNCTIONS]
        self.uniform, self.below, self._draw_order, self._draw_replacements = bound
        self._entries = entries  # at the address below
        self._choice = mask_id, entries.ctypes.data, len(entries)
        self._order, self._replacements = _Buffer.of(0, np.uint32), _Buffer.of(0, np.int32)

    def order(self, count: int, num_used: int) -> np.ndarray:
        if count > len(self._order.values):
            self._order = _Buffer.of(count, np.uint32)
        self._draw_order(self._order.address, count)
        return self._order.values[:num_used]

    def replacements(self, count: int) -> np.ndarray:
        if count > len(self._replacements.values):
            self._replacements = _Buffer.of(count, np.int32)
        self._draw_replacements(self._replacements.address, count, *self._choice)
        return self._replacements.values[:count]


class InterpretedDraws(PythonDraws):
    """The same without a compiler. Lib/random.py itself would spend most of the time on calls of its functions."""

    def __init__(self, seed: int, mask_id: int, entries: np.ndarray) -> None:
        rng = random.Random(seed)
        self.uniform, self._getrandbits = rng.random, rng.getrandbits
        self._mask_id, self._entries = mask_id, entries

    def below(self, limit: int) -> int:
        num_bits = limit.bit_length()
        drawn = self._getrandbits(num_bits)
        while drawn >= limit:
            drawn = self._getrandbits(num_bits)
        return drawn

    def order(self, count: int, num_used: int) -> np.ndarray:
        numbers = range(count)
        items = list(numbers) if count <= _MAX_IN_LIST else array("I", numbers)  # slower, but 4 bytes a number, not 36
        getrandbits, end = self._getrandbits, count
        while end > 1:
            num_bits = end.bit_length()
            least = max(1, (1 << num_bits - 1) - 1)  # down to here a limit, last + 1, has as many bits
            if end > num_used:  # what belongs at `last` is not used
                least = max(least, num_used)
                for last in range(end - 1, least - 1, -1):
                    while (drawn := getrandbits(num_bits)) > last:
                        pass
                    items[drawn] = items[last]
            else:
                for last in range(end - 1, least - 1, -1):
                    while (drawn := getrandbits(num_bits)) > last:
                        pass
                    items[drawn], items[last] = items[last], items[drawn]
            end = least
        return np.array(items[:num_used], np.uint32)

    def replacements(self, count: int) -> np.ndarray:
        draw = self.uniform
        drawn = [self._mask_id] * count
        for number in range(count):
            if draw() >= 0.8:
                drawn[number] = KEPT if draw() < 0.5 else self._entries[self.below(len(self._entries))]
        return np.array(drawn, np.int32)
