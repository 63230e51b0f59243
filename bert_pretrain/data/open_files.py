"""The files of a data set that are open at a time, read by position."""

from __future__ import annotations

import errno
import functools
import os
import resource

_MAX_OPEN_FILES = 128


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
