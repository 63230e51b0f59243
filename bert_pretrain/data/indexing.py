"""The tables of a data set's shards: the kept ones are read, the others made, by all ranks of a host together."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np

from bert_pretrain.data import index_table, remote_scan
from bert_pretrain.data.index_table import Identity
from bert_pretrain.storage import remote
from bert_pretrain.storage.file_cache import FileCache
from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import is_url

_WAIT_SECONDS = 0.2  # for shards that other ranks scan
_LOOK_SECONDS = 1.0  # between two looks for tables that other ranks made


def _silent(done: int, total: int) -> None:
    pass


class Share(NamedTuple):
    """Which rank of a host this is, and where it reports bytes indexed and bytes in all."""

    local_rank: int = 0
    local_size: int = 1
    report: Callable[[int, int], None] = _silent


ALONE = Share()


class Tables(NamedTuple):
    """What is known of the shards [shards]."""

    shards: list[Identity]
    offsets: list[np.ndarray]  # [N+1] each
    remote: list[Optional[RemoteFile]]  # None for a local shard


def load(paths: Sequence[str], share: Share, cache: Optional[FileCache] = None) -> Tables:
    """Identity and table [N+1] of each shard; remote shards are copied into `cache` where it has room.

    ValueError for a shard that is damaged, cut short or unreadable.
    """
    indexing = _Indexing(paths, share, cache)
    indexing.read_kept()
    if indexing.missing:
        with contextlib.closing(_Claims()) as claims:
            indexing.make(claims)
    return Tables(indexing.shards, [indexing.tables[number] for number in range(len(paths))], indexing.remote)


class _Claims:
    """Says which process scans which shard: locks on single bytes of one file, which end with the process.

    Where the cache folder cannot be written or has no locks, every claim succeeds, and ranks may scan the same shard.
    """

    def __init__(self) -> None:
        self._file: Optional[int] = None
        with contextlib.suppress(OSError):
            index_table.folder().mkdir(parents=True, exist_ok=True)
            self._file = os.open(index_table.folder() / ".claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, shard: Identity) -> bool:
        """False where another process has the shard."""
        try:
            return self._lock(shard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True

    def release(self, shard: Identity) -> None:
        """Gives up a shard that was taken."""
        with contextlib.suppress(OSError):
            self._lock(shard, fcntl.LOCK_UN)

    def close(self) -> None:
        """Gives up everything."""
        if self._file is not None:
            os.close(self._file)

    def _lock(self, shard: Identity, operation: int) -> bool:
        if self._file is not None:
            fcntl.lockf(self._file, operation, 1, int(shard.key[:15], 16))
        return True


class _Indexing:
    """The tables of a data set, as far as this process has them."""

    def __init__(self, paths: Sequence[str], share: Share, cache: Optional[FileCache]) -> None:
        self._paths, self._share, self._cache = paths, share, cache
        self.shards: list[Identity] = []
        self.remote: list[Optional[RemoteFile]] = []
        for path in paths:
            with _reading(path):
                file = remote.describe(path) if is_url(path) else None
                self.remote.append(file)
                self.shards.append(index_table.identify_remote(file) if file else index_table.identify(path))
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
                table = index_table.read(self.shards[number])
            if table is not None and not self._lacks_copy(number):
                self._add(number, table)
        self.missing = [number for number in self.missing if number not in self.tables]

    def make(self, claims: _Claims) -> None:
        """Scans shards that no other process scans, and reads the tables that others make, until none is missing."""
        looked = time.monotonic()
        while self.missing:
            number = next((number for number in self.missing if claims.take(self.shards[number])), None)
            if number is None:
                time.sleep(_WAIT_SECONDS)
            else:
                self._add(number, self._make(number))
                self.missing.remove(number)
                claims.release(self.shards[number])
            if number is None or time.monotonic() > looked + _LOOK_SECONDS:
                self.read_kept()
                self._report(0)
                looked = time.monotonic()

    def _make(self, number: int) -> np.ndarray:
        shard, path = self.shards[number], self._paths[number]
        with _reading(path):
            kept = index_table.read(shard)  # another rank may have made it since this one looked
            if kept is not None and not self._lacks_copy(number):
                return kept
            shard, scanned = self._scan(number, kept)
        if scanned is kept:
            return kept
        self.shards[number] = shard
        try:
            index_table.keep(shard, scanned)
        except OSError as error:
            self._warn(error)
        with _reading(path):
            kept = index_table.read(shard)
        return scanned if kept is None else kept  # the ranks of a host share the memory of a kept one

    def _lacks_copy(self, number: int) -> bool:
        file = self.remote[number]
        return bool(self._cache and file and number not in self._without_room and not self._cache.find(file))

    def _scan(self, number: int, kept: Optional[np.ndarray]) -> tuple[Identity, np.ndarray]:
        """Identity and table of a shard; of a remote one, its copy too, or the table that is kept if it has no room."""
        file = self.remote[number]
        if file is None:
            return index_table.scan(self._paths[number], self._report)
        with self._cache.writing(file) if self._cache else contextlib.nullcontext() as copy:
            if copy is None:
                self._without_room.add(number)
            is_needed = kept is None or copy is not None
            return self.shards[number], remote_scan.scan(file, self._report, copy) if is_needed else kept

    def _report(self, scanned: int) -> None:
        self._share.report(self._done + scanned, self._total)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            print(
                f"warning: {index_table.folder()}: index tables cannot be written ({error.strerror}), so the next "
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
