"""Where each record of a shard begins: found by reading the shard once, then kept in a cache folder.

A table is a file of little-endian int64: version, size and modification time (ns) of the shard, CRC-32C of the
offsets, then the offset of each record and, last, the end of the file. It is memory-mapped, so the ranks of a host
share it. A table that is missing, stale or damaged is made again; where none can be written, reading does without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import tfrecord

COPY_AGAIN = "copy the file again from its source, or remove it"

_VERSION = 1
_HEAD = 4  # numbers in front of the offsets
_CHUNK_BYTES = 4 << 20


def cache_directory() -> str:
    """$BERT_PRETRAIN_CACHE/index, else bert_pretrain/index in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("BERT_PRETRAIN_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(own or os.path.join(shared, "bert_pretrain"), "index")


def load(path: str) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and the end of the file.

    ValueError, naming file and byte, for a shard that is damaged or cut short; OSError where it cannot be read.
    """
    state = os.stat(path)
    facts = (_VERSION, state.st_size, state.st_mtime_ns)
    table = os.path.join(cache_directory(), hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:40])
    offsets = _read(table, facts)
    if offsets is None:
        offsets = scan(path)
        _write(table, facts, offsets)
    return offsets


def scan(path: str) -> np.ndarray:
    """`load` without the cache: walks from header to header, checking the CRC of each length."""
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
    """The person's line about a record that goes on after the last byte of its file."""
    return f"the record at this byte is cut short, the file ends at byte {size}; {COPY_AGAIN}"


def _read(table: str, facts: tuple[int, int, int]) -> Optional[np.ndarray]:
    try:
        numbers = np.asarray(np.memmap(table, "<i8", "r"))
    except (OSError, ValueError):  # ValueError: empty, or no whole number of int64
        return None
    offsets = numbers[_HEAD:]
    sound = len(offsets) and tuple(numbers[:_HEAD].tolist()) == (*facts, crc32c(offsets.data))
    return offsets if sound else None


def _write(table: str, facts: tuple[int, int, int], offsets: np.ndarray) -> None:
    partial = f"{table}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(table), exist_ok=True)
        np.concatenate([[*facts, crc32c(offsets.data)], offsets]).astype("<i8").tofile(partial)
        os.replace(partial, table)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(partial)
