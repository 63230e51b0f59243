"""Whole remote files on a local disk, within a budget of bytes, shared by all processes of a host.

A copy's name is a hash of URL, size and version, so a file that was replaced is copied again. A copy appears whole.
When there is no room, the copies that were used least recently go, but none that this process needs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import IO, Optional

from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import sync_to_disk
from bert_pretrain.system.locks import FileLock, locked_file

_LOCK = ".lock"
_COPY, _PARTIAL = ".copy", ".partial"


class FileCache:
    """The copies in a directory. ValueError where it cannot be written."""

    def __init__(self, directory: str, most_bytes: int) -> None:
        """Makes the directory; most_bytes bounds the sum of all copies in it."""
        self._directory, self._most_bytes = directory, most_bytes
        self._needed: set[str] = set()
        with self._explained():
            os.makedirs(directory, exist_ok=True)

    def need(self, files: Iterable[RemoteFile]) -> None:
        """Says which files this process uses: their copies stay."""
        self._needed.update(self._path(file) for file in files)

    def find(self, file: RemoteFile) -> Optional[str]:
        """The path of the whole copy of a file, which counts as used now; None without one."""
        path = self._path(file)
        try:
            if os.path.getsize(path) != file.num_bytes:
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError:  # another user's copy, which this process may read but not touch
            pass
        return path

    @contextlib.contextmanager
    def writing(self, file: RemoteFile) -> Iterator[Optional[IO[bytes]]]:
        """Yields a file to write the copy to, which then appears whole.

        Yields None where the budget has no room for it, or another process writes it now.
        """
        path = self._path(file)
        partial = path[: -len(_COPY)] + _PARTIAL
        with self._explained():
            lock = self._reserve(file, partial)
        if lock is None:
            yield None
            return
        try:
            with open(lock.descriptor, "wb", buffering=1 << 20, closefd=False) as output:
                yield output
                with self._explained():
                    output.flush()
                    os.fsync(output.fileno())
                assert output.tell() == os.path.getsize(partial) == file.num_bytes, "a copy of another size"
            os.replace(partial, path)
            sync_to_disk(self._directory)
        except BaseException:
            lock.release(remove=True)
            raise
        lock.release()

    def forget(self, file: RemoteFile) -> None:
        """Removes the copy of a file."""
        with contextlib.suppress(OSError):
            os.remove(self._path(file))

    def _path(self, file: RemoteFile) -> str:
        name = hashlib.sha256("\n".join(map(str, file)).encode()).hexdigest()[:40]
        return os.path.join(self._directory, name + _COPY)

    def _reserve(self, file: RemoteFile, partial: str) -> Optional[FileLock]:
        """A file of the full size, so that other processes count it; it is locked while this process writes."""
        lock = FileLock(partial)
        with locked_file(os.path.join(self._directory, _LOCK)):
            if not (self._make_room(file.num_bytes) and lock.acquire(wait=False)):
                return None
            try:
                for num_bytes in (0, file.num_bytes):
                    os.ftruncate(lock.descriptor, num_bytes)
            except OSError:
                lock.release(remove=True)
                raise
        return lock

    def _make_room(self, num_bytes: int) -> bool:
        """Removes what is not needed until `num_bytes` have room; removes nothing where that would not do."""
        held = [entry for entry in os.scandir(self._directory) if entry.name.endswith((_COPY, _PARTIAL))]
        sizes = {entry.path: entry.stat().st_size for entry in held}
        ages = {entry.path: entry.stat().st_mtime_ns for entry in held}
        free = self._most_bytes - sum(sizes.values())
        removed = []
        for path in sorted(set(sizes) - self._needed, key=ages.__getitem__):
            if free >= num_bytes:
                break
            if path.endswith(_COPY) or not _is_written(path):
                removed.append(path)
                free += sizes[path]
        if free < num_bytes:
            return False
        for path in removed:
            os.remove(path)
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "; free space there or lower --cache_gb" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise ValueError(f"--cache_dir: {self._directory} cannot be written ({error.strerror}){remedy}") from None


def _is_written(partial: str) -> bool:
    """True while a process writes this file, as far as is known; what a killed process left is not locked."""
    lock = FileLock(partial)
    try:
        lock.acquire(wait=False)
        return not lock.is_exclusive
    except OSError:  # another user's
        return True
    finally:
        lock.release()
