"""The records of a data set, read by number."""

from __future__ import annotations

import errno
import functools
import os
import resource
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import index_table, indexing, offsets, tfrecord
from bert_pretrain.data.indexing import ALONE, Share
from bert_pretrain.data.order import Blocks
from bert_pretrain.data.shard_files import ShardFile, fingerprint

_MAX_OPEN_FILES = 128
_HEAD, _FOOT = tfrecord.HEADER.size, tfrecord.FOOTER.size


class Location(NamedTuple):
    """Position of a record: its shard, its number there from 0, and the byte at which it begins."""

    path: str
    number: int
    offset: int


class ShardIndex:
    """The records of a data set, numbered over its shards from 0; safe to read from several threads."""

    def __init__(self, paths: Sequence[str], share: Share = ALONE) -> None:
        """Finds where each record begins; the ranks of a host share the first scan.

        ValueError for a shard that is damaged, cut short or unreadable.
        """
        self.paths = list(paths)
        self._shards, self._offsets = indexing.load(self.paths, share)
        self.records_per_shard = [len(table) - 1 for table in self._offsets]
        self._ends = np.cumsum(self.records_per_shard)  # [shards] record numbers
        self._starts = self._ends - self.records_per_shard
        self.num_records = int(self._ends[-1])
        self._open = functools.lru_cache(_max_open_files())(_OpenFile)

    @functools.cached_property
    def files(self) -> list[ShardFile]:
        """The shards, in the order of their records."""
        sizes = [shard.num_bytes for shard in self._shards]
        return [ShardFile(*facts) for facts in zip(self.paths, sizes, self.records_per_shard)]

    @property
    def fingerprint(self) -> str:
        """Identifies the data set, as shard_files.fingerprint."""
        return fingerprint(self.files)

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
        path = self.paths[shard]
        try:
            try:
                return self._open(path)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
            self._open.cache_clear()  # something else in this process took the descriptors
            return self._open(path)
        except OSError as error:
            raise _unreadable(path, error) from None

    def _read_run(self, shard: int, first: int, last: int, read: _Read) -> None:
        """Reads records first:last of a shard and appends them to `read`."""
        table = self._offsets[shard]
        begin, end = table.item(first), table.item(last)
        file = self._file(shard)  # this reference keeps the file open while others are opened
        try:
            run = file.read(begin, end)
        except OSError as error:
            raise _unreadable(f"{self.paths[shard]}:{begin}", error) from None
        if len(run) < end - begin:
            raise self._fault(shard, begin, offsets.cut_short(begin + len(run)))
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
            (shard,), (number,) = self._places(records[damaged[:1]])
            begin = self._offsets[shard].item(number)
            raise self._fault(int(shard), begin, f"the record at this byte is damaged; {offsets.COPY_AGAIN}")

    def _fault(self, shard: int, begin: int, reason: str) -> ValueError:
        """The error for a record that cannot be read where the index says. A replaced shard is not damaged."""
        path = self.paths[shard]
        try:
            found = offsets.scan(path)
        except ValueError as error:
            return error
        except OSError as error:
            return _unreadable(path, error)
        if np.array_equal(found, self._offsets[shard]):
            return ValueError(f"{path}:{begin}: {reason}")
        index_table.forget(self._shards[shard])
        return ValueError(f"{path}: other records than when it was indexed: the file was replaced; start again")


def _max_open_files() -> int:
    """Shards that stay open, of one data set: a quarter of this process's descriptors at most."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(_MAX_OPEN_FILES, limit // 4))


def _unreadable(place: str, error: OSError) -> ValueError:
    return ValueError(f"{place}: cannot be read ({error.strerror})")


class _Read(NamedTuple):
    """Records read, in the order on disk."""

    contents: list[bytes]
    crcs: list[int]
    stated_crcs: list[bytes]  # masked, little-endian


class _OpenFile:
    """A file descriptor that is closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block

    def read(self, begin: int, end: int) -> bytes:
        """Bytes begin:end, fewer where the file ends before. One call of the system returns 2 GiB at most."""
        read = os.pread(self.number, end - begin, begin)
        while len(read) < end - begin and (more := os.pread(self.number, end - begin - len(read), begin + len(read))):
            read += more
        return read

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
