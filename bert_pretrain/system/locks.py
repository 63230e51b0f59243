"""Locks: the kernel's lock on a file, and one job in a directory, whose lock file names its holder.

Standard library only, and importable by any Python: scripts lock directories before anything is installed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional

from bert_pretrain.system import files

_HELD_BY_OTHER = (errno.EACCES, errno.EAGAIN)  # flock's answers; any other error means that there are no locks here

_BEAT_SECONDS = 5.0  # between two signs of life of a directory's holder
_WATCH_SECONDS = 4 * _BEAT_SECONDS
_PATIENCE_SECONDS = 2.0  # for a job that is just ending, and for a server that releases its lock
_SILENT_SECONDS = 5.0  # that a process waits for a file before it says for whom
_SETTLE_SECONDS = 0.5  # without locks: of two jobs that take the file at once, the later one has it
_HOLDER_KEYS = {"host", "pid", "since", "process_start", "kernel", "processes"}

Holder = Dict[str, Any]  # a lock's note of who holds it: host, pid, since, and what its kind needs besides


# --- The kernel's lock on a file ---


class FileLock:
    """The kernel's exclusive lock on a file (flock, on NFS also between hosts).

    It ends with release() or with the process, however that dies. The file is made where there is none; what it
    contains stays. A file system without locks, as some Lustre and NFS, lets everyone in.
    """

    def __init__(self, path: str) -> None:
        """Does not touch the file yet."""
        self.path = path
        self._descriptor: Optional[int] = None  # of the open file, while this process is in
        self.is_exclusive = False  # the kernel keeps other processes out

    @property
    def descriptor(self) -> int:
        """That of the open file. Only while this process is in."""
        assert self._descriptor is not None, f"{self.path} is not locked"
        return self._descriptor

    def acquire(self, wait: bool = True) -> bool:
        """Lets this process in. False, at once, where another process has the lock and `wait` is false.

        OSError where the file cannot be made, or is a symbolic link, a FIFO or anything else but a regular file.
        """
        while True:
            descriptor = files.open_itself(self.path, os.O_RDWR | os.O_CREAT)  # flock on NFS needs both
            try:
                is_exclusive = _flock(descriptor, wait)
                is_in = is_exclusive is not None and _is_at(self.path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if is_in:
                self._descriptor, self.is_exclusive = descriptor, bool(is_exclusive)
                return True
            os.close(descriptor)
            if is_exclusive is None:
                return False
            # Its holder has removed the file between our opening and locking it.

    def release(self, remove: bool = False) -> None:
        """Lets others in; removes the file first if asked. Nothing happens where this process is not in."""
        if self._descriptor is not None:
            if remove:
                with contextlib.suppress(OSError):
                    os.remove(self.path)
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor, self.is_exclusive = None, False


@contextlib.contextmanager
def locked_file(path: str, remedy: str = "") -> Iterator[bool]:
    """Holds the lock of a file, which stays; waits while another process holds it, and says on stderr which one.

    remedy: follows that sentence. Yields False, without waiting, where the file system has no locks. OSError as
    FileLock.acquire.
    """
    lock, end = FileLock(path), time.monotonic() + _SILENT_SECONDS
    while not lock.acquire(wait=False):
        if time.monotonic() > end:
            print(f"waiting for {path}, which {_name_locker(path)} has locked{remedy}", file=sys.stderr, flush=True)
            lock.acquire()
            break
        time.sleep(0.05)
    try:
        yield lock.is_exclusive
    finally:
        lock.release()


def _flock(descriptor: int, wait: bool) -> Optional[bool]:
    """True where the lock is taken, False where the file system has none, None where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _HELD_BY_OTHER else False
    return True


def _name_locker(path: str) -> str:
    """The process that has a file's lock, in a message: the kernel names those that this one can see."""
    try:
        found = os.stat(path)
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in (_read_text("/proc/locks") or "").splitlines():  # 1: FLOCK ADVISORY WRITE 123 08:01:456 0 EOF
            kind, _, _, pid, where = line.split()[1:6]
            if (kind, where) == ("FLOCK", place) and int(pid) > 0:
                return f"process {pid} of {_owner_name(f'/proc/{pid}')} on {socket.gethostname()}"
    except (OSError, ValueError):  # the file or the process is gone
        pass
    return "a process of another host or container"


def _owner_name(path: str) -> str:
    """The user to whom a file belongs; the number of one without a name."""
    number = os.stat(path, follow_symlinks=False).st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _is_at(path: str, descriptor: int) -> bool:
    """True where an open file is still the one at the path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


# --- Who holds a lock, and whether it lives ---


class HeldError(ValueError):
    """Another job works in the directory."""


class LockedWork(NamedTuple):
    """What one job at a time does in a directory."""

    file_name: str
    option: str  # before the directory in a message
    verb: str  # what the holder does

    def held_error(self, directory: str, holder: Optional[Holder], remedy: str) -> HeldError:
        """The error for the job that is not let in; remedy follows the sentence."""
        return HeldError(
            f"{self.option}{directory} is in use: {name_holder(holder)} {self.verb} there; wait for its end, stop it, "
            f"or choose another directory{remedy}"
        )


TRAINING = LockedWork(".training.lock", "--output_dir: ", "trains")
SCRIPT = LockedWork(".script.lock", "", "works")
DATA = LockedWork(".make_data.lock", "--output_dir: ", "makes data")


def this_holder() -> Holder:
    """What every note says of the calling process."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def parse_holder(content: bytes, keys: set[str]) -> Optional[Holder]:
    """The holder that a note with exactly these keys names, None where it names none."""
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return None
    is_holder = isinstance(holder, dict) and set(holder) == keys and isinstance(holder["pid"], int)
    return holder if is_holder else None


def name_holder(holder: Optional[Holder]) -> str:
    """The holder in a message."""
    return f"process {holder['pid']} on {holder['host']} (since {holder['since']})" if holder else "another job"


def watching_line(place: str, holder: Holder, seconds: float) -> str:
    """What is said before watch_holder; place: the note's path or URL."""
    return f"{place} names {name_holder(holder)}; watching for {seconds:.0f} seconds whether it lives"


def watch_holder(look: Callable[[], object], seconds: float, every: float, patience: float = 0.0) -> bool:
    """Whether a holder lives, by what look() returns: a note's state, which the holder changes, or None without a note.

    It is dead once the note is gone or has not changed for `seconds`. It lives once the note has changed; with
    `patience`, only where it still changes so many seconds later.
    """
    begin = changed = time.monotonic()
    before = look()
    while time.monotonic() < changed + seconds:
        time.sleep(every)
        now = look()
        if now is None:
            return False
        if now != before:
            before, changed = now, time.monotonic()
        if changed > begin and time.monotonic() > begin + patience and time.monotonic() < changed + seconds / 2:
            return True
    return False


# --- One job in a directory ---


class DirectoryLock:
    """The lock of a directory, from construction until release() or the end of the process.

    The kernel's lock decides alone where it exists and the file names a process of this kernel. A file system without
    locks, or NFS with locks that are local to a host, needs more: a process of this machine is known by its number and
    start time, any other by its heartbeat, the file's modification time, which changes every few seconds while the job
    lives.
    """

    def __init__(self, directory: str, work: LockedWork, tell: Callable[[str], None]) -> None:
        """tell(line) says why it waits. HeldError names the holder; ValueError where the file cannot be made."""
        self._path, self._work = os.path.join(directory, work.file_name), work
        self._file, self._own = FileLock(self._path), _this_process()
        self._dead: Optional[Holder] = None  # a holder without a heartbeat
        self._is_locked = False  # by another process, as the kernel says
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self._try():
            holder = _read_holder(self._path)
            if holder and holder != self._dead and not self._is_locked and not _is_visible(holder, self._own):
                tell(watching_line(self._path, holder, _WATCH_SECONDS))
                is_alive = watch_holder(lambda: _state(self._path), _WATCH_SECONDS, every=_BEAT_SECONDS / 5)
                self._dead = None if is_alive else holder
                end = time.monotonic() + (0.0 if is_alive else _PATIENCE_SECONDS)
            if time.monotonic() > end:
                raise self._work.held_error(directory, holder, self._remedy(holder))
            time.sleep(0.1)
        self._is_released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="directory_lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Removes the file, then lets another job in."""
        self._is_released.set()
        self._heart.join()  # it must not touch a file that gets the descriptor's number
        self._file.release(remove=True)

    def _try(self) -> bool:
        """Takes the directory if it is free."""
        try:
            self._is_locked = not self._file.acquire(wait=False)
            if not self._is_locked and self._is_free() and self._write_holder():
                return True
        except OSError as error:
            self._file.release()
            raise ValueError(f"{self._work.option}{self._path} cannot be written: {error.strerror}") from None
        self._file.release()
        return False

    def _is_free(self) -> bool:
        """Whether the holder that the file names, if any, has ended."""
        holder = parse_holder(os.pread(self._file.descriptor, 1 << 16, 0), _HOLDER_KEYS)
        if holder is None or holder == self._dead:
            return True
        is_visible = _is_visible(holder, self._own)
        if not self._file.is_exclusive:
            return is_visible and not _is_running(holder)
        # The kernel's word, except on a job of an older version, which holds a lock of another kind (lockf).
        is_other = holder["pid"] != self._own["pid"] and holder["process_start"] is not None
        return holder["kernel"] == self._own["kernel"] and not (is_visible and is_other and _is_running(holder))

    def _write_holder(self) -> bool:
        """Names this process in the file. False where, without locks, another job was later."""
        try:
            os.ftruncate(self._file.descriptor, 0)
            os.pwrite(self._file.descriptor, json.dumps(self._own).encode(), 0)
        except OSError:  # a full disk: the kernel's lock does not need the name
            if not self._file.is_exclusive:
                raise
        if self._file.is_exclusive:
            return True
        time.sleep(_SETTLE_SECONDS)
        return _is_at(self._path, self._file.descriptor) and _read_holder(self._path) == self._own

    def _remedy(self, holder: Optional[Holder]) -> str:
        """An NFS server may keep the lock of a host that has crashed."""
        is_elsewhere = holder and holder["kernel"] != self._own["kernel"]
        return f"; if that host is down, remove {self._path}" if is_elsewhere else ""

    def _beat(self) -> None:
        while not self._is_released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._file.descriptor)


@contextlib.contextmanager
def locked_directory(directory: str, work: LockedWork) -> Iterator[None]:
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
        try:
            yield
        finally:
            lock.release()
    finally:
        with contextlib.suppress(OSError):
            for made in missing:
                os.rmdir(made)


def _this_process() -> Holder:
    return {
        **this_holder(),
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
    """When a process started, in the kernel's clock; None without /proc and for a process that has ended.

    psutil tells it by the machine's clock alone, which may be set while the job lives.
    """
    fields = (_read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return fields[19] if fields and fields[0] != "Z" else None


def _state(path: str) -> Optional[tuple[int, int]]:
    """What changes with each beat. The file is opened each time, so that NFS asks the server."""
    try:
        with files.open_regular(path, "rb") as file:
            found = os.fstat(file.fileno())
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read_holder(path: str) -> Optional[Holder]:
    return parse_holder((_read_text(path) or "").encode(), _HOLDER_KEYS)


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
