"""The offsets of the shards' records, kept in the cache folder so that a shard is scanned once.

Kept tables are read, the others are made, by all ranks of a host together.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import socket
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data.shards import offsets
from bert_pretrain.storage import remote
from bert_pretrain.storage.file_cache import FileCache
from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import atomic_write, cache_directory, is_url, open_regular
from bert_pretrain.system.locks import FileLock

_VERSION = 2
_END_BYTES = 4096  # of the shard, at each end, that its identity covers
_HEAD = np.dtype("<u8")
_SMALLEST_MAP = 64 << 10  # bytes; a smaller table is read
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# Python's mmap keeps a file descriptor for as long as the map exists, which would be one for each shard.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_WAIT_SECONDS = 0.2  # for shards that other ranks scan
_LOOK_SECONDS = 1.0  # between two looks for tables that other ranks made


class ShardIdentity(NamedTuple):
    """What a shard is, whatever its path."""

    key: str
    num_bytes: int


def table_folder() -> Path:
    """Where the tables are."""
    return cache_directory("index")


def identify_shard(path: str) -> ShardIdentity:
    """The identity of a shard. OSError where it cannot be read."""
    with open_regular(path, "rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        ends = [os.pread(file.fileno(), _END_BYTES, at) for at in (0, max(0, state.st_size - _END_BYTES))]
    facts = f"{_VERSION} {state.st_size} {state.st_mtime_ns} ".encode()
    return ShardIdentity(hashlib.sha256(facts + b"".join(ends)).hexdigest()[:40], state.st_size)


def identify_remote_shard(file: RemoteFile) -> ShardIdentity:
    """The identity of a shard in a remote storage."""
    facts = f"{_VERSION} {file.url} {file.num_bytes} {file.version}".encode()
    return ShardIdentity(hashlib.sha256(facts).hexdigest()[:40], file.num_bytes)


def scan_shard(path: str, report: Callable[[int], None] = lambda done: None) -> tuple[ShardIdentity, np.ndarray]:
    """A shard's identity and, from scan_offsets, its offsets. ValueError if it changes meanwhile."""
    shard = identify_shard(path)
    found = offsets.scan_offsets(path, report)
    if identify_shard(path) != shard:
        raise ValueError(f"{path}: changed while it was indexed; start again when nothing writes to it")
    return shard, found


def read_table(shard: ShardIdentity) -> Optional[np.ndarray]:
    """[N+1] uint32 or int64: a shard's table, whose pages all processes share; None where it is missing or damaged.

    OSError where this process has no descriptor or memory left: to scan the shard would be no remedy.
    """
    try:
        with open_regular(str(_path(shard)), "rb", buffering=0) as file:
            content = _contents(file.fileno(), os.fstat(file.fileno()).st_size)
        table = content[_HEAD.itemsize :].view(_dtype(shard))
        crc = content[: _HEAD.itemsize].view(_HEAD)
    except OSError as error:
        if error.errno in _OUT_OF:
            raise
        return None
    except ValueError:  # not a whole number of entries
        return None
    is_sound = len(table) and table[-1] == shard.num_bytes and crc[0] == _crc(shard, table)
    return table if is_sound else None


def keep_table(shard: ShardIdentity, table: np.ndarray) -> None:
    """Writes a table, complete or not at all. OSError if it cannot be written."""
    path, own = _path(shard), f"{_path(shard)}.{socket.gethostname()}.{os.getpid()}"
    compact = table.astype(_dtype(shard))
    with atomic_write(own, "wb", is_durable=False) as file:  # what a power loss damages is told by its CRC
        file.write(np.array([_crc(shard, compact)], _HEAD).tobytes())
        file.write(compact.tobytes())
    # A rename would replace a table that another host just wrote and mapped; on NFS its pages would be lost.
    try:
        os.link(own, path)
    except OSError:
        if read_table(shard) is None:
            os.replace(own, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(own)


def forget_table(shard: ShardIdentity) -> None:
    """Removes a table that proved to be another shard's."""
    _path(shard).unlink(missing_ok=True)


def _path(shard: ShardIdentity) -> Path:
    return table_folder() / shard.key


def _dtype(shard: ShardIdentity) -> np.dtype:
    return np.dtype("<u4" if shard.num_bytes < 1 << 32 else "<i8")


def _crc(shard: ShardIdentity, table: np.ndarray) -> int:
    return crc32c(table.data, crc32c(shard.key.encode()))


def _contents(number: int, size: int) -> np.ndarray:
    """[size] uint8: the bytes of an open file, mapped where that is worthwhile and possible.

    Another user's is read: who cuts a mapped file short ends all processes that have it, with a bus error.
    """
    is_mapped = size >= _SMALLEST_MAP and os.fstat(number).st_uid in (0, os.geteuid())
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, number, 0) if is_mapped else None
    if address in (None, ctypes.c_void_p(-1).value):
        return np.frombuffer(os.pread(number, size, 0), np.uint8)
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False  # other threads may still read it then
    array = np.frombuffer(memoryview(memory), np.uint8)
    array.flags.writeable = False
    return array


def _silent(done: int, total: int) -> None:
    pass


class Share(NamedTuple):
    """Which rank of a host this is, and where it reports bytes indexed and bytes in all."""

    local_rank: int = 0
    local_size: int = 1
    report: Callable[[int, int], None] = _silent


ALONE = Share()


class ShardTables(NamedTuple):
    """What is known of the shards [shards]."""

    shards: list[ShardIdentity]
    offsets: list[np.ndarray]  # [N+1] each
    remote: list[Optional[RemoteFile]]  # None for a local shard


def load_tables(paths: Sequence[str], share: Share, cache: Optional[FileCache] = None) -> ShardTables:
    """Identity and table [N+1] of each shard; remote shards are copied into `cache` where it has room.

    ValueError for a shard that is damaged, cut short or unreadable.
    """
    indexing = _Indexing(paths, share, cache)
    indexing.read_kept()
    indexing.make_missing()
    return ShardTables(indexing.shards, [indexing.tables[number] for number in range(len(paths))], indexing.remote)


def _claim(shard: ShardIdentity) -> Optional[FileLock]:
    """The lock under which this process scans a shard; None where another process has it.

    Where the cache folder cannot be written or has no locks, every claim succeeds, and ranks may scan the same shard.
    """
    lock = FileLock(str(table_folder() / f".{shard.key}.claim"))
    try:
        return lock if lock.acquire(wait=False) else None
    except OSError:
        return lock


class _Indexing:
    """The tables of a data set, as far as this process has them."""

    def __init__(self, paths: Sequence[str], share: Share, cache: Optional[FileCache]) -> None:
        self._paths, self._share, self._cache = paths, share, cache
        self.shards: list[ShardIdentity] = []
        self.remote: list[Optional[RemoteFile]] = []
        for path in paths:
            with _reading(path):
                file = remote.describe_file(path) if is_url(path) else None
                self.remote.append(file)
                self.shards.append(identify_remote_shard(file) if file else identify_shard(path))
        if cache:
            cache.need(file for file in self.remote if file)
        self.tables: dict[int, np.ndarray] = {}
        self._without_room: set[int] = set()  # remote shards that the cache cannot hold
        # The ranks of a host start at different shards.
        first = len(paths) * share.local_rank // share.local_size
        self.missing = [*range(first, len(paths)), *range(first)]
        self._done, self._total = 0, sum(shard.num_bytes for shard in self.shards)
        self._warned = share.local_rank > 0

    def read_kept(self) -> None:
        """Reads the tables that exist."""
        for number in self.missing:
            with _reading(self._paths[number]):
                table = read_table(self.shards[number])
            if table is not None and not self._lacks_copy(number):
                self._add(number, table)
        self.missing = [number for number in self.missing if number not in self.tables]

    def make_missing(self) -> None:
        """Scans shards that no other process scans, and reads the tables that others make, until none is missing."""
        if self.missing:
            with contextlib.suppress(OSError):
                table_folder().mkdir(parents=True, exist_ok=True)
        looked = time.monotonic()
        while self.missing:
            claimed = self._claim_missing()
            if claimed:
                number, claim = claimed
                try:
                    self._add(number, self._make(number))
                finally:
                    claim.release(remove=True)
                self.missing.remove(number)
            else:
                time.sleep(_WAIT_SECONDS)
            if not claimed or time.monotonic() > looked + _LOOK_SECONDS:
                self.read_kept()
                self._report(0)
                looked = time.monotonic()

    def _claim_missing(self) -> Optional[tuple[int, FileLock]]:
        """The first missing shard that no other process scans, and the lock under which this one does."""
        for number in self.missing:
            claim = _claim(self.shards[number])
            if claim:
                return number, claim
        return None

    def _make(self, number: int) -> np.ndarray:
        shard, path = self.shards[number], self._paths[number]
        with _reading(path):
            kept = read_table(shard)  # another rank may have made it since this one looked
            if kept is not None and not self._lacks_copy(number):
                return kept
            shard, scanned = self._scan(number, kept)
        if scanned is kept:
            return scanned
        self.shards[number] = shard
        try:
            keep_table(shard, scanned)
        except OSError as error:
            self._warn(error)
        with _reading(path):
            kept = read_table(shard)
        return scanned if kept is None else kept  # the ranks of a host share the memory of a kept one

    def _lacks_copy(self, number: int) -> bool:
        file = self.remote[number]
        return bool(self._cache and file and number not in self._without_room and not self._cache.find(file))

    def _scan(self, number: int, kept: Optional[np.ndarray]) -> tuple[ShardIdentity, np.ndarray]:
        """Identity and table of a shard; of a remote one, its copy too, or the table that is kept if it has no room."""
        file = self.remote[number]
        if file is None:
            return scan_shard(self._paths[number], self._report)
        with self._cache.writing(file) if self._cache else contextlib.nullcontext() as copy:
            if copy is None:
                self._without_room.add(number)
            if kept is not None and copy is None:
                return self.shards[number], kept
            return self.shards[number], offsets.scan_remote_offsets(file, self._report, copy)

    def _report(self, scanned: int) -> None:
        self._share.report(self._done + scanned, self._total)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            print(
                f"warning: {table_folder()}: index tables cannot be written ({error.strerror}), so the next "
                f"start scans the shards again; set BERT_PRETRAIN_CACHE to a folder with space",
                file=sys.stderr,
            )
        self._warned = True

    def _add(self, number: int, table: np.ndarray) -> None:
        self.tables[number] = table
        self._done += self.shards[number].num_bytes


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
