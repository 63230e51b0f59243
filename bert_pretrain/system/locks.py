"""One job in a directory: a lock file that names its holder. Standard library only.

The kernel's lock on the file (fcntl.lockf, on NFS also between hosts) ends with the process that holds it, however that
dies. It decides alone where it exists and the file names a process of this kernel. A file system without locks, or NFS
with locks that are local to a host, needs more: a process of this machine is known by its number and start time, any
other by its heartbeat, the file's modification time, which changes every few seconds while the job lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional

_BEAT_SECONDS = 5.0
_WATCH_SECONDS = 4 * _BEAT_SECONDS
_PATIENCE_SECONDS = 2.0  # for a job that is just ending, and for a server that releases its lock
_SETTLE_SECONDS = 0.5  # without locks: of two jobs that take the file at once, the later one has it
_KEYS = {"host", "pid", "since", "process_start", "kernel", "processes"}
_HELD = (errno.EACCES, errno.EAGAIN)

Holder = Dict[str, Any]


class Work(NamedTuple):
    """What one job at a time does in a directory."""

    file_name: str
    option: str  # before the directory in a message
    verb: str  # what the holder does


TRAINING = Work(".training.lock", "--output_dir: ", "trains")
SCRIPT = Work(".script.lock", "", "works")
DATA = Work(".make_data.lock", "--output_dir: ", "makes data")


class HeldError(ValueError):
    """Another job works in the directory."""


class DirectoryLock:
    """The lock of a directory, from construction until release() or the end of the process."""

    def __init__(self, directory: str, work: Work, tell: Callable[[str], None]) -> None:
        """tell(line) says why it waits. HeldError names the holder; ValueError where the file cannot be made."""
        self._path, self._work = os.path.join(directory, work.file_name), work
        self._own = _this_process()
        self._dead: Optional[Holder] = None  # a holder without a heartbeat
        self._is_held = False  # by the word of the kernel
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self._try():
            holder = _read(self._path)
            if holder and holder != self._dead and not self._is_held and not _is_visible(holder, self._own):
                tell(f"{self._path} names {_name(holder)}; watching for {_WATCH_SECONDS:.0f} seconds whether it lives")
                self._dead = None if _beats(self._path) else holder
                end = time.monotonic() + (_PATIENCE_SECONDS if self._dead else 0.0)
            if time.monotonic() > end:
                raise HeldError(
                    f"{work.option}{directory} is in use: {_name(holder)} {work.verb} there; wait for its end, stop "
                    f"it, or choose another directory{self._remedy(holder)}"
                )
            time.sleep(0.1)
        self._is_released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="directory_lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Removes the file, then lets another job in."""
        self._is_released.set()
        self._heart.join()  # it must not touch a file that gets the descriptor's number
        for act, argument in ((os.remove, self._path), (os.close, self._descriptor)):
            with contextlib.suppress(OSError):
                act(argument)

    def _remedy(self, holder: Optional[Holder]) -> str:
        """An NFS server may keep the lock of a host that has crashed."""
        is_elsewhere = holder and holder["kernel"] != self._own["kernel"]
        return f"; if that host is down, remove {self._path}" if is_elsewhere else ""

    def _unwritable(self, error: OSError) -> ValueError:
        return ValueError(f"{self._work.option}{self._path} cannot be written: {error.strerror}")

    def _try(self) -> bool:
        """Takes the file if it is free."""
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._unwritable(error) from None
        is_taken = self._take()
        if not is_taken:
            os.close(self._descriptor)
        return is_taken

    def _take(self) -> bool:
        has_lock, self._is_held = True, False
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            has_lock, self._is_held = False, error.errno in _HELD  # any other error: no locks here
        if self._is_held or not self._is_in_place() or not self._is_free(has_lock):
            return False
        content = json.dumps(self._own).encode()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content, 0)
        except OSError as error:  # a full disk: the kernel's lock does not need the name
            if not has_lock:
                raise self._unwritable(error) from None
        if not has_lock:
            time.sleep(_SETTLE_SECONDS)
        return has_lock or (self._is_in_place() and _read(self._path) == self._own)

    def _is_in_place(self) -> bool:
        """False where the previous holder has removed the file between our opening and locking it."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _is_free(self, has_lock: bool) -> bool:
        holder = _parse(os.pread(self._descriptor, 1 << 16, 0))
        if holder is None or holder == self._dead:
            return True
        is_same_kernel = holder["kernel"] == self._own["kernel"]
        return is_same_kernel and (has_lock or (_is_visible(holder, self._own) and not _is_running(holder)))

    def _beat(self) -> None:
        while not self._is_released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


@contextlib.contextmanager
def locked(directory: str, work: Work) -> Iterator[None]:
    """Holds the lock; says on stderr why it waits. Folders that were made for it and got nothing else do not stay.

    HeldError names the holder; ValueError where the directory cannot be written.
    """
    path, missing = os.path.abspath(directory), []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{work.option}{directory} cannot be written: {error.strerror}") from None
    try:
        lock = DirectoryLock(directory, work, lambda line: print(line, file=sys.stderr, flush=True))
        with contextlib.ExitStack() as stack:
            stack.callback(lock.release)
            yield
    finally:
        with contextlib.suppress(OSError):
            for made in missing:
                os.rmdir(made)


def _this_process() -> Holder:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "process_start": _process_start(os.getpid()),
        "kernel": _read_text("/proc/sys/kernel/random/boot_id") or socket.gethostname(),
        "processes": _link("/proc/self/ns/pid"),  # containers number their processes by themselves
    }


def _is_visible(holder: Holder, own: Holder) -> bool:
    """True where the holder would be among the processes that this one can see."""
    return (holder["kernel"], holder["processes"]) == (own["kernel"], own["processes"])


def _is_running(holder: Holder) -> bool:
    if holder["process_start"] is not None:
        return _process_start(holder["pid"]) == holder["process_start"]
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _process_start(pid: int) -> Optional[str]:
    """When a process started, in the kernel's clock; None without /proc and for a process that has ended."""
    fields = (_read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return fields[19] if fields and fields[0] != "Z" else None


def _beats(path: str) -> bool:
    """Watches for a change of the file. It is opened each time, so that NFS asks the server."""

    def state() -> Optional[tuple[int, int]]:
        try:
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    first, end = state(), time.monotonic() + _WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(_BEAT_SECONDS / 5)
        if state() != first:
            return True
    return False


def _read(path: str) -> Optional[Holder]:
    return _parse((_read_text(path) or "").encode())


def _parse(content: bytes) -> Optional[Holder]:
    """The holder, None where the file does not name one."""
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return None
    is_holder = isinstance(holder, dict) and set(holder) == _KEYS and isinstance(holder["pid"], int)
    return holder if is_holder else None


def _name(holder: Optional[Holder]) -> str:
    return f"process {holder['pid']} on {holder['host']} (since {holder['since']})" if holder else "another job"


def _read_text(path: str) -> Optional[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _link(path: str) -> Optional[str]:
    try:
        return os.readlink(path)
    except OSError:
        return None
