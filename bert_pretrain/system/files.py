"""Whole files, the cache folder and the cores of this process, for all programs here. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Callable, ContextManager, Literal, Optional, TextIO, overload

_PARTIAL = ".partial"
# In a name, TensorFlow's readers take these for a pattern, and TensorFlow has no bytes for half surrogates, with which
# Python writes bytes that are no UTF-8.
_NOT_PLAIN = re.compile(r"[*?\[\]\\\ud800-\udfff]")

ReportBytes = Callable[[str, int, int], None]  # of long work on files: what is done, bytes done, bytes in all


@overload
def atomic_write(path: str, mode: Literal["w"] = "w", is_durable: bool = True) -> ContextManager[TextIO]: ...
@overload
def atomic_write(path: str, mode: Literal["wb"], is_durable: bool = True) -> ContextManager[BinaryIO]: ...


@contextlib.contextmanager
def atomic_write(path: str, mode: str = "w", is_durable: bool = True) -> Iterator[IO[Any]]:
    """Opens a file for writing (mode "w": UTF-8 text with Unix line ends; or "wb") that appears at `path` complete.

    Until then it is a hidden file beside `path`, which an exception removes. A power loss leaves the old content or the
    new one; is_durable=False is for what has a digest and is made again where that differs, because the disk is not
    waited for. Creates missing directories. OSError is the caller's to explain.
    """
    assert mode in ("w", "wb"), mode
    directory, _ = os.path.split(path)
    if directory:
        os.makedirs(directory, exist_ok=True)
    partial = _partial_of(path)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with open(partial, mode, buffering=1 << 20, encoding=encoding, newline=newline, opener=open_new) as file:
            yield file
            if is_durable:
                file.flush()
                _sync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
    if is_durable:
        sync_to_disk(directory or ".")


@contextlib.contextmanager
def atomic_directory(path: str) -> Iterator[str]:
    """Yields a directory to fill, which appears at `path` when all is written, and stays there after a power loss.

    An exception removes it. FileExistsError where `path` is anything but an empty directory. OSError is the caller's to
    explain.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(errno.EEXIST, "exists already", path)
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    partial = _partial_of(path)
    try:
        os.mkdir(partial)
        yield partial
        for folder, _, names in os.walk(partial):
            sync_to_disk(*(os.path.join(folder, name) for name in names), folder)
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_to_disk(parent)


def _partial_of(path: str) -> str:
    """Where `path` is written first. Nobody can know it and put a link there; containers share process numbers."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{os.getpid()}-{os.urandom(4).hex()}{_PARTIAL}")


def open_itself(path: str, flags: int) -> int:
    """An opener for open(), for files that this program names in a folder that others may write to.

    OSError for a symbolic link, which could lead to any file, and for a FIFO, socket or device, without waiting.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "a symbolic link where a file belongs", path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def open_new(path: str, flags: int) -> int:
    """An opener for open(): the file must be new. FileExistsError where there is one, a link, or anything else."""
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, 0o666)


def sync_to_disk(*paths: str) -> None:
    """Waits until files, or the names in directories, are on the disk.

    OSError where the disk fails. Nothing happens in a file system that cannot tell, as some of FUSE.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:  # a directory that may be written to but not listed
            continue
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS):
            raise


@contextlib.contextmanager
def plain_name(path: str) -> Iterator[str]:
    """Yields a name of a file, a folder or a checkpoint (by its prefix) that a library takes as it is.

    TensorFlow reads some characters as a pattern, and like libraries in Rust it has no names that are not UTF-8. For
    such a path it is a link in a private temporary folder, which goes at the end; else `path` itself. What is written
    below the link to a folder is in that folder. ValueError where there is no temporary folder.
    """
    if not _NOT_PLAIN.search(path):
        yield path
        return
    with tempfile.TemporaryDirectory(dir=_plain_temporary_folder(path)) as folder:
        directory, name = os.path.split(os.path.abspath(path))
        of_checkpoint = re.compile(re.escape(name) + r"(\.index|\.data-\d+-of-\d+)?")
        for found in os.listdir(directory) if os.path.isdir(directory) else ():
            if of_checkpoint.fullmatch(found):
                os.symlink(os.path.join(directory, found), os.path.join(folder, "named" + found[len(name) :]))
        yield os.path.join(folder, "named")


def _plain_temporary_folder(path: str) -> str:
    for folder in (os.environ.get("TMPDIR", "/tmp"), "/tmp", "/var/tmp", "/dev/shm"):
        if not _NOT_PLAIN.search(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ValueError(
        f"{path}: TensorFlow cannot take this name, and there is no temporary folder for a link with another one; make "
        "/tmp writable, or choose a name without * ? [ ] \\ and in UTF-8"
    )


def split_names(text: str) -> list[str]:
    """'a, b' -> ['a', 'b']: names separated by commas, the empty ones left out.

    What exists as it stands is one name, with its commas and blanks; the longest such name counts.
    """
    names, pieces = [], text.split(",")
    while pieces:
        ends = range(len(pieces), 0, -1)
        end = next((end for end in ends if os.path.lexists(",".join(pieces[:end]))), 0)
        name = ",".join(pieces[:end]) if end else pieces[0].strip()
        names += [name] if name else []
        pieces = pieces[max(1, end) :]
    return names


def match_names(text: str) -> list[tuple[str, list[str]]]:
    """Each of the names and patterns that split_names finds in `text`, and its paths, sorted.

    A name that exists is no pattern, whatever characters it has. A pattern may match nothing.
    """
    return [(name, [name] if os.path.lexists(name) else sorted(glob.glob(name))) for name in split_names(text)]


def printable(text: str) -> str:
    """Text that has a path in it, as UTF-8 can show it: bytes that are no UTF-8 become Python's escapes, and JSON's."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def temporary_directory() -> Iterator[str]:
    """A new folder for what only this process needs, removed at the end. ValueError where none can be made."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise ValueError(f"no temporary folder: {error.strerror}; TMPDIR=DIR chooses one that can be written") from None
    with folder as path:
        yield path


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
        # printable: a path that is no UTF-8 is read back as it was.
        file.write(printable(json.dumps(content, indent=indent, ensure_ascii=False)) + "\n")


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
    """Folder `name` in $BERT_PRETRAIN_CACHE, else in bert_pretrain of $XDG_CACHE_HOME or ~/.cache. Not created.

    A user without a home (a container's --user without a line in /etc/passwd) has bert_pretrain-UID among the temporary
    folders.
    """
    own, shared, home = (os.environ.get(key) for key in ("BERT_PRETRAIN_CACHE", "XDG_CACHE_HOME", "HOME"))
    if own or shared or home or os.path.expanduser("~") != "~":
        return Path(os.path.expanduser(own or os.path.join(shared or "~/.cache", "bert_pretrain")), name)
    return Path(os.environ.get("TMPDIR") or "/tmp", f"bert_pretrain-{os.getuid()}", name)


def is_url(path: str) -> bool:
    """True for scheme://..., which names a file or directory of a remote storage: s3, gs, hdfs and others."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def num_cores() -> int:
    """Cores that this process may use, which cpusets, taskset and a container's CPU quota can limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, num_host_cores())


def num_host_cores(root: str = "/") -> int:
    """Cores that all processes of this host or container have, which a CPU quota limits; at least 1.

    root: the folder with proc and sys. A quota (docker run --cpus, Kubernetes' limits) is that of a control group, of
    version 1 or 2, or of one above it. Part of a core counts as one.
    """
    return max(1, math.ceil(min([float(os.cpu_count() or 1), *_cpu_quotas(root)])))


def _cpu_quotas(root: str) -> Iterator[float]:
    """In cores, of this process's control groups."""
    for line in _read_lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("cpu", controllers) if controllers else ("", "unified")
        parts = [part for part in group.split("/") if part not in ("", "..")]  # within a container, the host's path
        for mount, depth in itertools.product(mounts, range(len(parts) + 1)):
            folder = os.path.join(root, "sys/fs/cgroup", mount, *parts[:depth])
            limit = " ".join(_read_lines(os.path.join(folder, "cpu.max"))).split()  # "max 100000", "150000 100000"
            for name in () if limit else ("cpu.cfs_quota_us", "cpu.cfs_period_us"):  # -1: no limit
                limit += _read_lines(os.path.join(folder, name))
            if len(limit) == 2 and limit[0].isdigit() and int(limit[0]):
                yield int(limit[0]) / int(limit[1])


def _read_lines(path: str) -> list[str]:
    """Those of a file of the kernel, none where it is missing."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
