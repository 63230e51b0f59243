"""TFRecord files: what surrounds each record in a shard, and writing one.

On disk a record is: uint64 length, uint32 masked CRC-32C of those eight bytes, the data, uint32 masked CRC-32C of the
data; all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, TypeVar

from crc32c import crc32c

from bert_pretrain.system.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

Crc = TypeVar("Crc", int, "np.ndarray")

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
FRAME_SIZE = HEADER.size + FOOTER.size

_LENGTH = struct.Struct("<Q")
_MASK_DELTA = 0xA282EAD8
_RECORDS_AT_ONCE = 128  # to a write, about 300 kB


def masked_crc(crc: Crc) -> Crc:
    """TFRecord's masked form of a CRC-32C (an int, or an array of uint64).

    TFRecord masks CRCs because the CRC of data that contains its own CRC is degenerate.
    """
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@functools.lru_cache(maxsize=1 << 14)
def record_header(length: int) -> bytes:
    """The twelve bytes before a record of `length` bytes."""
    packed = _LENGTH.pack(length)
    return packed + FOOTER.pack(masked_crc(crc32c(packed)))


def frame_record(record: bytes) -> bytes:
    """A record with header and footer, as it is stored in a shard."""
    return record_header(len(record)) + record + FOOTER.pack(masked_crc(crc32c(record)))


def write_shard(path: str, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file, complete or not at all; returns its number of records."""
    with atomic_write(path, "wb") as file:
        return write_records(file, records)


def write_records(file: IO[bytes], records: Iterable[bytes]) -> int:
    """Appends records to an open file; returns their number."""
    num_records = 0
    records = iter(records)
    while frames := [frame_record(record) for record in itertools.islice(records, _RECORDS_AT_ONCE)]:
        file.write(b"".join(frames))
        num_records += len(frames)
    return num_records
