"""Finds the shards of a data set, and reads their records by number."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import offsets, tfrecord
from bert_pretrain.data.order import Blocks

_SIDE_FILES = (".json", ".npz")  # of bert_pretrain, beside shards: manifest.json, provenance of make_data
_MAX_OPEN_FILES = 128
_HEAD, _FOOT = tfrecord.HEADER.size, tfrecord.FOOTER.size
_GZIP_MAGIC = b"\x1f\x8b"


class Location(NamedTuple):
    """Position of a record: its shard, its number there from 0, and the byte at which it begins."""

    path: str
    number: int
    offset: int


def find_shards(directories: Sequence[str], skip_unreadable: bool = False, is_root: bool = True) -> list[str]:
    """The TFRecord files directly in `directories`, by name within each, without hidden files.

    ValueError for a directory that is missing, given twice or without shards, and for a file that is not a TFRecord.
    With skip_unreadable such a file is left out, and rank 0 names it on stderr.
    """
    paths: list[str] = []
    for directory in directories:
        found = _find_in(directory, skip_unreadable, is_root)
        if not found:
            raise ValueError(f"{directory}: no TFRecord files in this directory; give the one that holds the shards")
        paths += found
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise ValueError(f"{', '.join(directories)}: the same shards twice; name each directory once")
    if not paths:
        raise ValueError("no data directory given; name one that holds TFRecord shards")
    return paths


def _find_in(directory: str, skip_unreadable: bool, is_root: bool) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if not entry.is_dir())
    except FileNotFoundError:
        raise ValueError(f"{directory}: no such directory; give the one that holds the shards") from None
    except OSError as error:
        raise ValueError(f"{directory}: {error.strerror}; give the directory that holds the shards") from None
    paths = [os.path.join(directory, name) for name in names if not name.startswith(".")]
    paths = [path for path in paths if not path.endswith(_SIDE_FILES)]
    strays = {path: why for path in paths if (why := _why_not_a_shard(path))}
    if strays and not skip_unreadable:
        path, why = next(iter(strays.items()))
        others = f", and {len(strays) - 1} other files there too" if len(strays) > 1 else ""
        raise ValueError(f"{path}: {why}{others}; move it elsewhere, or give --skip_unreadable to leave such files out")
    for path, why in strays.items() if is_root else ():
        print(f"--skip_unreadable: left out {path}: {why}", file=sys.stderr)
    return [path for path in paths if path not in strays]


def _why_not_a_shard(path: str) -> Optional[str]:
    """The reason why a file is not a shard; None if it begins with a valid TFRecord header."""
    try:
        with open(path, "rb") as file:
            start = file.read(_HEAD)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not start:
        return "empty"
    if start.startswith(_GZIP_MAGIC):
        return "compressed with gzip, and records are read by offset (gunzip makes it readable)"
    if len(start) < _HEAD or start != tfrecord.header(tfrecord.HEADER.unpack(start)[0]):
        return "not a TFRecord file"
    return None


class ShardIndex:
    """The records of a data set, numbered over its shards from 0; safe to read from several threads."""

    def __init__(self, paths: Sequence[str], rank: int = 0, num_ranks: int = 1) -> None:
        """Finds where each record begins. The ranks start at different shards, to share the first scan.

        ValueError for a shard that is damaged, cut short or unreadable.
        """
        self.paths = list(paths)
        tables: dict[int, np.ndarray] = {}
        for turn in range(len(paths)):
            shard = (turn + len(paths) * rank // num_ranks) % len(paths)
            try:
                tables[shard] = offsets.load(self.paths[shard])
            except OSError as error:
                raise ValueError(f"{self.paths[shard]}: cannot be read ({error.strerror})") from None
        self._offsets = [tables[shard] for shard in range(len(paths))]
        self.records_per_shard = [len(table) - 1 for table in self._offsets]
        self._ends = np.cumsum(self.records_per_shard)  # [shards] record numbers
        self._starts = self._ends - self.records_per_shard
        self.num_records = int(self._ends[-1])
        self._open = functools.lru_cache(_MAX_OPEN_FILES)(_OpenFile)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies a data set by names, sizes and record counts of its shards, whatever their directory."""
        facts = [
            f"{os.path.basename(path)} {table[-1]} {num_records}\n"
            for path, table, num_records in zip(self.paths, self._offsets, self.records_per_shard)
        ]
        return hashlib.sha256("".join(facts).encode()).hexdigest()[:16]

    def locate(self, record: int) -> Location:
        """Position of a record."""
        shard = int(np.searchsorted(self._ends, record, side="right"))
        number = int(record - self._starts[shard])
        return Location(self.paths[shard], number, self._offsets[shard].item(number))

    def names(self, records: np.ndarray) -> list[str]:
        """'path:byte' of each record, as error messages name it."""
        shards, numbers = self._places(records)
        return [
            f"{self.paths[shard]}:{self._offsets[shard].item(number)}"
            for shard, number in zip(shards.tolist(), numbers.tolist())
        ]

    def sizes(self, records: np.ndarray) -> np.ndarray:
        """[X] int64: bytes of each record on disk, framing included."""
        shards, numbers = self._places(records)
        found = np.empty([len(records)], np.int64)
        for shard in np.unique(shards).tolist():
            here = shards == shard
            first = numbers[here]
            found[here] = self._offsets[shard][first + 1] - self._offsets[shard][first]
        return found

    def read(self, records: np.ndarray) -> list[bytes]:
        """The contents of records, in the given order. Reads in the order on disk, neighbours in one call.

        ValueError, naming file and byte, where a CRC is wrong or the file has changed.
        """
        on_disk = np.argsort(records, kind="stable")
        records = records[on_disk]
        shards, numbers = self._places(records)
        is_last = np.ones([len(records)], bool)  # of a run of neighbours
        is_last[:-1] = (records[1:] - records[:-1] != 1) | (numbers[1:] == 0)
        read = _Read([], [], [])
        first = None
        for shard, number, ends_run in zip(shards.tolist(), numbers.tolist(), is_last.tolist()):
            first = number if first is None else first
            if ends_run:
                self._read_run(shard, first, number + 1, read)
                first = None
        self._check(records, read)
        ordered = [b""] * len(records)
        for place, content in zip(on_disk.tolist(), read.contents):
            ordered[place] = content
        return ordered

    def will_need(self, blocks: Blocks) -> None:
        """Requests that the operating system read these runs of records ahead, in the order on disk."""
        if not hasattr(os, "posix_fadvise"):
            return
        on_disk = np.argsort(blocks.first)
        shards, numbers = self._places(blocks.first[on_disk])
        for shard, first, length in zip(shards.tolist(), numbers.tolist(), blocks.lengths[on_disk].tolist()):
            begin, end = self._offsets[shard].item(first), self._offsets[shard].item(first + length)
            os.posix_fadvise(self._file(shard).number, begin, end - begin, os.POSIX_FADV_WILLNEED)

    def _places(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard of each record, and the record's number in that shard."""
        shards = np.searchsorted(self._ends, records, side="right")
        return shards, records - self._starts[shards]

    def _file(self, shard: int) -> _OpenFile:
        try:
            return self._open(self.paths[shard])
        except OSError as error:
            raise ValueError(f"{self.paths[shard]}: cannot be read ({error.strerror})") from None

    def _read_run(self, shard: int, first: int, last: int, read: _Read) -> None:
        """Reads records first:last of a shard in one call and appends them to `read`."""
        table = self._offsets[shard]
        begin, end = table.item(first), table.item(last)
        file = self._file(shard)  # this reference keeps the file open while others are opened
        try:
            run = os.pread(file.number, end - begin, begin)
        except OSError as error:
            raise ValueError(f"{self.paths[shard]}:{begin}: cannot be read ({error.strerror})") from None
        if len(run) < end - begin:
            raise ValueError(f"{self.paths[shard]}:{begin}: {offsets.cut_short(begin + len(run))}")
        contents, crcs, stated_crcs = read
        start = 0
        for number in range(first + 1, last + 1):
            stop = table.item(number) - begin
            content = run[start + _HEAD : stop - _FOOT]
            contents.append(content)
            crcs.append(crc32c(content))
            stated_crcs.append(run[stop - _FOOT : stop])
            start = stop

    def _check(self, records: np.ndarray, read: _Read) -> None:
        """Raises ValueError for the first record whose contents do not have the CRC that its frame states."""
        stated = np.frombuffer(b"".join(read.stated_crcs), "<u4")
        damaged = np.flatnonzero(stated != tfrecord.masked(np.array(read.crcs, np.uint64)))
        if len(damaged):
            (name,) = self.names(records[damaged[:1]])
            raise ValueError(f"{name}: the record at this byte is damaged; {offsets.COPY_AGAIN}")


class _Read(NamedTuple):
    """Records read, in the order on disk."""

    contents: list[bytes]
    crcs: list[int]
    stated_crcs: list[bytes]  # masked, little-endian


class _OpenFile:
    """A file descriptor that is closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
