"""Whole files, the cache folder and the cores of this process, for all programs here. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Callable, ContextManager, Literal, Optional, TextIO, overload

_PARTIAL = ".partial"

ReportBytes = Callable[[str, int, int], None]  # of long work on files: what is done, bytes done, bytes in all


@overload
def atomic_write(path: str, mode: Literal["w"] = "w") -> ContextManager[TextIO]: ...
@overload
def atomic_write(path: str, mode: Literal["wb"]) -> ContextManager[BinaryIO]: ...


@contextlib.contextmanager
def atomic_write(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file for writing (mode "w": UTF-8 text with Unix line ends; or "wb") that appears at `path` complete.

    Until then it is a hidden file beside `path`, which an exception removes. Creates missing directories. OSError is
    the caller's to explain.
    """
    assert mode in ("w", "wb"), mode
    directory, name = os.path.split(path)
    if directory:
        os.makedirs(directory, exist_ok=True)
    partial = os.path.join(directory, f".{name}.{os.getpid()}{_PARTIAL}")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with open(partial, mode, buffering=1 << 20, encoding=encoding, newline=newline) as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


@contextlib.contextmanager
def atomic_directory(path: str) -> Iterator[str]:
    """Yields a directory to fill, which appears at `path` when all is written; an exception removes it.

    FileExistsError where `path` is anything but an empty directory. OSError is the caller's to explain.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(errno.EEXIST, "exists already", path)
    parent, name = os.path.split(path)
    os.makedirs(parent, exist_ok=True)
    partial = os.path.join(parent, f".{name}.{os.getpid()}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        os.mkdir(partial)
        yield partial
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def require_writable(what: str, path: str) -> None:
    """ValueError, beginning with `what`, unless a file or folder can be made at `path`; asked before long work.

    Tried with a hidden file in the nearest folder that exists. A disk that is only full may be freed until then.
    """
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        number, probe = tempfile.mkstemp(prefix=".writable-", suffix=_PARTIAL, dir=folder)
        os.close(number)
        os.remove(probe)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"{what}: {path} cannot be written ({folder}: {error.strerror})") from None


def require_free_name(what: str, path: str) -> None:
    """require_writable for a file: ValueError for a folder of that name, too."""
    if os.path.isdir(path):
        raise ValueError(f"{what}: {path} cannot be written (Is a directory)")
    require_writable(what, path)


def write_json(path: str, content: Any, indent: int = 1) -> None:
    """Writes a JSON file complete or not at all."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=indent, ensure_ascii=False)
        file.write("\n")


@overload
def open_regular(path: str, mode: Literal["r"] = "r", *, newline: Optional[str] = None) -> TextIO: ...
@overload
def open_regular(path: str, mode: Literal["rb"], *, buffering: int = -1) -> BinaryIO: ...


def open_regular(path: str, mode: str = "r", *, buffering: int = -1, newline: Optional[str] = None) -> IO[Any]:
    """Opens a file for reading, as open(). OSError for a FIFO, socket or device, which could block or never end."""

    def opener(name: str, flags: int) -> int:
        number = os.open(name, flags | os.O_NONBLOCK)  # else a FIFO waits here for a writer
        if stat.S_ISREG(os.fstat(number).st_mode) or stat.S_ISDIR(os.fstat(number).st_mode):  # open() refuses these
            return number
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file", name)

    assert mode in ("r", "rb"), mode
    encoding = None if "b" in mode else "utf-8-sig"  # editors on Windows begin a file with a byte order mark
    return open(path, mode, buffering=buffering, encoding=encoding, newline=newline, opener=opener)


def hash_file(path: str) -> str:
    """SHA-256 of a small file."""
    with open_regular(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def remove_partials(path: str) -> None:
    """Removes what killed processes left of their attempts to write `path`, a file or a directory."""
    directory, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError):
        for found in os.listdir(directory or "."):
            if found.startswith(f".{name}.") and found.endswith(_PARTIAL):
                left = os.path.join(directory, found)
                shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)


def cache_directory(name: str) -> Path:
    """Folder `name` in $BERT_PRETRAIN_CACHE, else in bert_pretrain of $XDG_CACHE_HOME or ~/.cache. Not created."""
    own = os.environ.get("BERT_PRETRAIN_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(own or os.path.join(shared, "bert_pretrain"), name).expanduser()


def is_url(path: str) -> bool:
    """True for scheme://..., which names a file or directory of a remote storage: s3, gs, hdfs and others."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def num_cores() -> int:
    """Cores that this process may use, which cpusets and taskset can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
