"""TFRecord files: what surrounds each record in a shard, and writing one.

On disk a record is: uint64 length, uint32 masked CRC-32C of those eight bytes, the data, uint32 masked CRC-32C of the
data; all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from typing import Any

from crc32c import crc32c

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
FRAME_SIZE = HEADER.size + FOOTER.size

_LENGTH = struct.Struct("<Q")
_MASK_DELTA = 0xA282EAD8


def masked(crc: Any) -> Any:
    """TFRecord's form of a CRC-32C, or of an array of them as uint64: so that the CRC of data with CRCs stays sound."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def header(length: int) -> bytes:
    """The twelve bytes in front of a record of `length` bytes."""
    packed = _LENGTH.pack(length)
    return packed + FOOTER.pack(masked(crc32c(packed)))


def frame(record: bytes) -> bytes:
    """A record as it stands in a shard."""
    return header(len(record)) + record + FOOTER.pack(masked(crc32c(record)))


def write_shard(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file and returns its number of records; it appears under its name only when complete."""
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")  # hidden: never a shard
    num_records = 0
    try:
        with open(partial, "wb", buffering=1 << 20) as file:
            for record in records:
                file.write(frame(record))
                num_records += 1
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
        raise
    return num_records
