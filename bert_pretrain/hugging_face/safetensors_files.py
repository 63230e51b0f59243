"""Tensors of a safetensors file, or of the several files that an index names, as NumPy arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files


class Tensor:
    """A tensor of an open file; it is read when it is asked for."""

    def __init__(self, file: Any, path: str, name: str) -> None:
        self._file, self._path = file, path
        self.name = name
        part = file.get_slice(name)
        self.shape: list[int] = list(part.get_shape())
        self.dtype: str = part.get_dtype()  # the format's name, such as F32 or BF16

    def read(self) -> np.ndarray:
        """The value; float32 for float16 and bfloat16, which it holds exactly."""
        if self.dtype == "BF16":
            return _read_bfloat16(self._path, self.name)
        value = self._file.get_tensor(self.name)
        return value.astype(np.float32) if value.dtype == np.float16 else value


def open_tensors(path: str, flag: str) -> Iterator[Tensor]:
    """All tensors of a safetensors file, or of a model.safetensors.index.json.

    ValueError, naming the flag, for a file that is missing, damaged or lacks what the index says of it.
    """
    if not path.endswith(".json"):
        file = _open(path, flag)
        yield from (Tensor(file, path, name) for name in file.keys())  # noqa: SIM118 (it is no mapping)
        return
    shards: dict[str, Any] = {}
    for name, shard in _weight_map(path, flag).items():
        place = os.path.join(os.path.dirname(path), shard)
        if shard not in shards:
            shards[shard] = _open(place, flag)
        try:
            yield Tensor(shards[shard], place, name)
        except SafetensorError:
            raise ValueError(f"--{flag}: {place} lacks {name}, which {path} names; copy the folder again") from None


def _weight_map(path: str, flag: str) -> Mapping[str, str]:
    """Tensor -> name of a file beside the index."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["weight_map"]
    except OSError as error:
        raise ValueError(f"--{flag}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"--{flag}: {path} is no index: it has no object weight_map; copy the folder again") from None
    if not isinstance(found, dict) or not all(
        isinstance(shard, str) and os.path.basename(shard) == shard for shard in found.values()
    ):
        raise ValueError(f"--{flag}: {path}: weight_map must name a file of the same folder for each tensor")
    return found


def _open(path: str, flag: str) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ValueError(f"--{flag}: {path} cannot be read: {what}") from None


def _read_bfloat16(path: str, name: str) -> np.ndarray:
    """A bfloat16 tensor as float32. NumPy has no such type, so the library refuses to read it into an array.

    A file is the length of a header, 8 bytes, the header, JSON, and the data. The library has checked all of them.
    """
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_bytes))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + header_bytes + begin)
        bits = np.frombuffer(file.read(end - begin), "<u2")
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
