"""Where each record of a shard begins: found by going from header to header."""

from __future__ import annotations

import os
from array import array
from typing import Callable

import numpy as np

from bert_pretrain.data import tfrecord
from bert_pretrain.system.files import open_regular

COPY_AGAIN = "copy the file again from its source, or remove it"

_CHUNK_BYTES = 4 << 20


def scan(path: str, report: Callable[[int], None] = lambda done: None) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and the end of the file.

    Checks the CRC of each length and calls report(bytes done) now and then. ValueError, naming file and byte, for a
    shard that is damaged or cut short; OSError where it cannot be read.
    """
    offsets = array("q")
    with open_regular(path, "rb", buffering=0) as file:
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
            report(base)
    offsets.append(size)
    return np.frombuffer(offsets, np.int64)


def cut_short(size: int) -> str:
    """Error text for a record that extends beyond the end of its file."""
    return f"the record at this byte is cut short, the file ends at byte {size}; {COPY_AGAIN}"
