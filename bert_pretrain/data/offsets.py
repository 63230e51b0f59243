"""Where each record of a shard begins: found by scanning the shard once, then kept in a table in the cache folder.

A table is a file of little-endian int64: version, size and modification time (ns) of the shard, CRC-32C of the
offsets, then the offset of each record and, last, the end of the file. It is memory-mapped, so the ranks of a host
share it. A table that is missing, stale or damaged is made again; where none can be written, each start scans.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import tfrecord
from bert_pretrain.files import atomic_write, cache_directory

COPY_AGAIN = "copy the file again from its source, or remove it"

_VERSION = 1
_HEAD = 4  # numbers before the offsets
_CHUNK_BYTES = 4 << 20


def load(path: str) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and the end of the file.

    ValueError, naming file and byte, for a shard that is damaged or cut short; OSError where it cannot be read.
    """
    state = os.stat(path)
    facts = (_VERSION, state.st_size, state.st_mtime_ns)
    table = cache_directory("index") / hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:40]
    offsets = _read(table, facts)
    if offsets is None:
        offsets = scan(path)
        _write(table, facts, offsets)
    return offsets


def scan(path: str) -> np.ndarray:
    """The same without the cache: goes from header to header and checks the CRC of each length."""
    offsets = []
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        base = 0
        while base < size:
            chunk = os.pread(file.fileno(), _CHUNK_BYTES, base)
            within = 0
            while within + tfrecord.HEADER.size <= len(chunk):
                length = tfrecord.HEADER.unpack_from(chunk, within)[0]
                if tfrecord.header(length) != chunk[within : within + tfrecord.HEADER.size]:
                    raise ValueError(f"{path}:{base + within}: the header at this byte is damaged; {COPY_AGAIN}")
                offsets.append(base + within)
                within += length + tfrecord.FRAME_SIZE
            if base + within > size or not within:
                raise ValueError(f"{path}:{offsets[-1] if within else base}: {cut_short(size)}")
            base += within
    return np.array([*offsets, size], np.int64)


def cut_short(size: int) -> str:
    """Error text for a record that extends beyond the end of its file."""
    return f"the record at this byte is cut short, the file ends at byte {size}; {COPY_AGAIN}"


def _read(table: Path, facts: tuple[int, int, int]) -> Optional[np.ndarray]:
    try:
        numbers = np.asarray(np.memmap(table, "<i8", "r"))
    except (OSError, ValueError):  # ValueError: empty, or no whole number of int64
        return None
    offsets = numbers[_HEAD:]
    is_sound = len(offsets) and tuple(numbers[:_HEAD].tolist()) == (*facts, crc32c(offsets.data))
    return offsets if is_sound else None


def _write(table: Path, facts: tuple[int, int, int], offsets: np.ndarray) -> None:
    numbers = np.concatenate([[*facts, crc32c(offsets.data)], offsets]).astype("<i8")
    with contextlib.suppress(OSError), atomic_write(str(table), "wb") as file:
        file.write(numbers.tobytes())
