"""The records of a data set, read by number from local files, or by ranges from a remote storage."""

from __future__ import annotations

import errno
import functools
import os
import resource
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data.order import BLOCK, POOL, Blocks
from bert_pretrain.data.shards import index_tables, offsets, tfrecord
from bert_pretrain.data.shards.index_tables import ALONE, Share
from bert_pretrain.data.shards.shard_files import ShardFile, fingerprint
from bert_pretrain.storage import remote
from bert_pretrain.storage.file_cache import FileCache
from bert_pretrain.storage.read_ahead import ReadAhead
from bert_pretrain.storage.remote import RemoteFile

_HEAD, _FOOT = tfrecord.HEADER.size, tfrecord.FOOTER.size
_MAX_OPEN_FILES = 128


class Location(NamedTuple):
    """Position of a record: its shard, its number there from 0, and the byte at which it begins."""

    path: str
    number: int
    offset: int


class ShardIndex:
    """The records of a data set, numbered over its shards from 0; safe to read from several threads."""

    def __init__(self, paths: Sequence[str], share: Share = ALONE, cache: Optional[FileCache] = None) -> None:
        """Finds where each record begins; the ranks of a host share the first scan.

        Remote shards are copied into `cache`, as many as have room there, and read by ranges otherwise. ValueError for
        a shard that is damaged, cut short or unreadable.
        """
        self.paths = list(paths)
        self._shards, self._offsets, self._remote_files = index_tables.load_tables(self.paths, share, cache)
        self.records_per_shard = [len(table) - 1 for table in self._offsets]
        self._ends = np.cumsum(self.records_per_shard)  # [shards] record numbers
        self._starts = self._ends - self.records_per_shard
        self.num_records = int(self._ends[-1])
        self._files = OpenFiles()
        self.is_remote = any(self._remote_files)
        self._remote = RemoteShards(self._remote_files, self._offsets) if self.is_remote else None
        self._cache = cache
        copies = [cache.find(file) if cache and file else None for file in self._remote_files]
        # [shards] Paths of local files; None for a shard that is read by ranges.
        self._local = [copy if file else path for path, file, copy in zip(self.paths, self._remote_files, copies)]

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
        while True:
            try:
                return self._read(records)
            except _LostCopyError:  # the next attempt reads the storage
                pass

    def _read(self, records: np.ndarray) -> list[bytes]:
        on_disk = np.argsort(records, kind="stable")
        records = records[on_disk]
        shards, numbers = self._places(records)
        is_last = np.ones([len(records)], bool)  # of a run of neighbours
        is_last[:-1] = (records[1:] - records[:-1] != 1) | (numbers[1:] == 0)
        runs, first = [], None
        for shard, number, ends_run in zip(shards.tolist(), numbers.tolist(), is_last.tolist()):
            first = number if first is None else first
            if ends_run:
                runs.append(RecordRun(shard, first, number + 1))
                first = None
        read = _Read([], [], [])
        fetched = self._fetch(runs)
        for run in runs:
            self._split(run, fetched[run] if run in fetched else self._read_run(run), read)
        self._check(records, read)
        ordered = [b""] * len(records)
        for place, content in zip(on_disk.tolist(), read.contents):
            ordered[place] = content
        return ordered

    def will_need(self, blocks: Blocks) -> None:
        """Requests that these runs of records, each within a block, be read ahead, in the order on disk."""
        on_disk = np.argsort(blocks.first)
        shards, numbers = self._places(blocks.first[on_disk])
        ends = numbers + blocks.lengths[on_disk]
        runs = [RecordRun(*facts) for facts in zip(shards.tolist(), numbers.tolist(), ends.tolist())]
        if self._remote:
            self._remote.will_need([run for run in runs if self._local[run.shard] is None])
        for shard, first, last in runs:
            if self._local[shard] is not None:
                self._file(shard).will_need(self._offsets[shard].item(first), self._offsets[shard].item(last))

    def _places(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard of each record, and the record's number in that shard."""
        shards = np.searchsorted(self._ends, records, side="right")
        return shards, records - self._starts[shards]

    def _file(self, shard: int) -> OpenFile:
        path = self._local[shard]
        if path is None:  # another thread has given the copy up
            raise _LostCopyError
        try:
            return self._files.get(path)
        except OSError as error:
            self._give_up_copy(shard)
            raise _unreadable(self.paths[shard], error) from None

    def _fetch(self, runs: Sequence[RecordRun]) -> dict[RecordRun, bytes]:
        """The bytes of those runs that are read from a remote storage."""
        remote = [run for run in runs if self._local[run.shard] is None]
        return self._remote.read(remote) if self._remote and remote else {}

    def _read_run(self, run: RecordRun) -> bytes:
        table = self._offsets[run.shard]
        begin, end = table.item(run.first), table.item(run.last)
        file = self._file(run.shard)  # this reference keeps the file open while others are opened
        try:
            content = file.read(begin, end)
        except OSError as error:
            self._give_up_copy(run.shard)
            raise _unreadable(f"{self.paths[run.shard]}:{begin}", error) from None
        if len(content) < end - begin:
            raise self._fault(run.shard, begin, offsets.cut_short(begin + len(content)))
        return content

    def _split(self, run: RecordRun, content: bytes, read: _Read) -> None:
        """Appends the records of a run to `read`."""
        table = self._offsets[run.shard]
        begin = table.item(run.first)
        contents, crcs, stated_crcs = read
        start = 0
        for number in range(run.first + 1, run.last + 1):
            stop = table.item(number) - begin
            record = content[start + _HEAD : stop - _FOOT]
            contents.append(record)
            crcs.append(crc32c(record))
            stated_crcs.append(content[stop - _FOOT : stop])
            start = stop

    def _check(self, records: np.ndarray, read: _Read) -> None:
        """Raises ValueError for the first record whose contents do not have the CRC that its frame states."""
        stated = np.frombuffer(b"".join(read.stated_crcs), "<u4")
        damaged = np.flatnonzero(stated != tfrecord.masked_crc(np.array(read.crcs, np.uint64)))
        if len(damaged):
            (shard,), (number,) = self._places(records[damaged[:1]])
            begin = self._offsets[shard].item(number)
            raise self._fault(int(shard), begin, f"the record at this byte is damaged; {offsets.COPY_AGAIN}")

    def _give_up_copy(self, shard: int) -> None:
        """Raises _LostCopyError where the shard is read from its copy in the cache, which another job may remove."""
        file = self._remote_files[shard]
        if file:
            assert self._cache is not None, "what is read by ranges is checked by RemoteShards"
            self._cache.forget(file)
            self._local[shard] = None
            raise _LostCopyError

    def _fault(self, shard: int, begin: int, reason: str) -> ValueError:
        """The error for a record that cannot be read where the index says. A replaced shard is not damaged."""
        path = self.paths[shard]
        self._give_up_copy(shard)
        try:
            found = offsets.scan_offsets(path)
        except ValueError as error:
            return error
        except OSError as error:
            return _unreadable(path, error)
        if np.array_equal(found, self._offsets[shard]):
            return ValueError(f"{path}:{begin}: {reason}")
        index_tables.forget_table(self._shards[shard])
        return ValueError(f"{path}: other records than when it was indexed: the file was replaced; start again")


def _unreadable(place: str, error: OSError) -> ValueError:
    return ValueError(f"{place}: cannot be read ({error.strerror})")


class _Read(NamedTuple):
    """Records read, in the order on disk."""

    contents: list[bytes]
    crcs: list[int]
    stated_crcs: list[bytes]  # masked, little-endian


class _LostCopyError(Exception):
    """A copy in the cache is gone or damaged."""


class OpenFiles:
    """Opens files when they are read and closes the least recently used; safe to read from several threads."""

    def __init__(self) -> None:
        self._open = functools.lru_cache(_max_open_files())(OpenFile)

    def get(self, path: str) -> OpenFile:
        """The file, which stays open for as long as the caller refers to it. OSError where it cannot be opened."""
        try:
            return self._open(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._open.cache_clear()  # something else in this process took the descriptors
        return self._open(path)


def _max_open_files() -> int:
    """Files that stay open, of one data set: a quarter of this process's descriptors at most."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(_MAX_OPEN_FILES, limit // 4))


class OpenFile:
    """A file descriptor that is closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block

    def read(self, begin: int, end: int) -> bytes:
        """Bytes begin:end, fewer where the file ends before. One call of the system returns 2 GiB at most."""
        read = os.pread(self.number, end - begin, begin)
        while len(read) < end - begin and (more := os.pread(self.number, end - begin - len(read), begin + len(read))):
            read += more
        return read

    def will_need(self, begin: int, end: int) -> None:
        """Requests that the operating system read bytes begin:end ahead."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.number, begin, end - begin, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class RecordRun(NamedTuple):
    """Records first:last of a shard, by number."""

    shard: int
    first: int
    last: int


class RemoteShards:
    """The remote shards of a data set. The blocks of two pools are kept in memory: the present one and the next."""

    def __init__(self, files: Sequence[Optional[RemoteFile]], tables: Sequence[np.ndarray]) -> None:
        """files [shards]: None for a local shard; tables [shards]: the offsets of its records."""
        self._files, self._tables = files, tables
        self._read_ahead: ReadAhead[RecordRun] = ReadAhead(self._fetch, capacity=2 * POOL)

    def will_need(self, runs: Iterable[RecordRun]) -> None:
        """Fetches runs in the background; each lies within a block."""
        self._read_ahead.request(dict.fromkeys(self._block(run.shard, run.first // BLOCK) for run in runs))

    def read(self, runs: Sequence[RecordRun]) -> dict[RecordRun, bytes]:
        """The bytes of runs: out of blocks that are kept or on their way, else exactly these, many at a time.

        ValueError, naming URL and byte, where that cannot be read, is damaged, or the shard was replaced.
        """
        pieces = {run: self._pieces(run) for run in runs}
        wanted = list(dict.fromkeys(piece for found in pieces.values() for piece in found))
        try:
            contents = dict(zip(wanted, self._read_ahead.get(wanted)))
        except OSError as error:
            raise self._fault(wanted, error) from None
        return {run: self._join(run, found, contents) for run, found in pieces.items()}

    def _block(self, shard: int, number: int) -> RecordRun:
        num_records = len(self._tables[shard]) - 1
        return RecordRun(shard, number * BLOCK, min((number + 1) * BLOCK, num_records))

    def _pieces(self, run: RecordRun) -> list[RecordRun]:
        """What is fetched for a run."""
        blocks = [self._block(run.shard, number) for number in range(run.first // BLOCK, (run.last - 1) // BLOCK + 1)]
        return blocks if all(map(self._read_ahead.holds, blocks)) else [run]

    def _span(self, run: RecordRun) -> tuple[int, int]:
        table = self._tables[run.shard]
        return table.item(run.first), table.item(run.last)

    def _join(self, run: RecordRun, pieces: Sequence[RecordRun], contents: dict[RecordRun, bytes]) -> bytes:
        if list(pieces) == [run]:
            return contents[run]
        (begin, end), start = self._span(run), self._span(pieces[0])[0]
        if len(pieces) == 1:
            return contents[pieces[0]][begin - start : end - start]
        return b"".join(contents[piece] for piece in pieces)[begin - start : end - start]

    def _fetch(self, run: RecordRun) -> bytes:
        """A piece whose records all have the CRCs that their frames state. OSError, naming URL and byte, otherwise."""
        begin, end = self._span(run)
        url, num_records = self._file(run.shard).url, run.last - run.first

        def problem(content: bytes) -> Optional[str]:
            starts, _, wrong = offsets.parse_offsets(content, begin)
            is_other = wrong is None and len(starts) != num_records
            return f"other records than when it was indexed; {offsets.COPY_AGAIN}" if is_other else wrong

        try:
            return remote.read_range(url, begin, end, problem)
        except OSError as error:
            raise OSError(error.errno, f"{url}:{begin}: cannot be read ({error.strerror})", url) from None

    def _fault(self, wanted: Sequence[RecordRun], error: OSError) -> ValueError:
        """The error for a piece that cannot be read; a replaced shard is not damaged."""
        file = next(file for piece in wanted if (file := self._file(piece.shard)).url == error.filename)
        try:
            is_replaced = remote.describe_file(file.url, is_fresh=True) != file
        except OSError:
            is_replaced = False
        if is_replaced:
            return ValueError(f"{file.url}: the file was replaced since it was indexed; start again")
        return ValueError(error.strerror)

    def _file(self, shard: int) -> RemoteFile:
        file = self._files[shard]
        assert file is not None, "a local shard is not read by ranges"
        return file
