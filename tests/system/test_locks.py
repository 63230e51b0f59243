"""Locks of files, and one training job in an output_dir: real processes, which end in every way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from bert_pretrain.system import locks
from bert_pretrain.system.locks import TRAINING, DirectoryLock, FileLock, HeldError, locked_file
from tests import small_disk

# A file system without locks, as some Lustre and NFS have it, by the answer that its kernel gives.
NO_LOCKS = """
import fcntl
def flock(*arguments):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""
HOLD = """
import sys, time
from bert_pretrain.system.locks import TRAINING, DirectoryLock
lock = DirectoryLock(sys.argv[1], TRAINING, print)
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


# --- Locks of files ---


def test_a_lock_keeps_other_processes_out_until_its_holder_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    hold = f"""
import time
from bert_pretrain.system.locks import locked_file
with locked_file({path!r}) as is_alone:
    print(is_alone, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "True\n"
        assert not FileLock(path).acquire(wait=False)
        holder.kill()
        with locked_file(path) as is_alone:
            assert is_alone
            assert not FileLock(path).acquire(wait=False)
    assert os.listdir(tmp_path) == ["lock"]


def test_whoever_waits_for_a_file_is_told_which_process_has_it(tmp_path: Path, monkeypatch, capfd) -> None:
    """Also one that is no program of ours, and keeps it."""
    monkeypatch.setattr(locks, "_SILENT_SECONDS", 0.1)
    path = str(tmp_path / "lock")
    hold = f"import fcntl, sys\nfile = open({path!r}, 'w')\nfcntl.flock(file, 2)\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline()
        threading.Timer(1.0, holder.stdin.close).start()
        with locked_file(path, "; a remedy") as is_alone:
            assert is_alone and holder.wait() == 0
    line = capfd.readouterr().err
    assert f"waiting for {path}, which process {holder.pid} of {pwd.getpwuid(os.getuid()).pw_name} on " in line
    assert line.endswith(" has locked; a remedy\n")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_lets_everyone_in(tmp_path: Path, monkeypatch, code: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_locks(code))
    with locked_file(str(tmp_path / "lock")) as is_alone:
        assert not is_alone
        assert FileLock(str(tmp_path / "lock")).acquire(wait=False)


def refuse_locks(code: int) -> Callable[..., None]:
    """A flock as on a file system that has no locks."""

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return flock


def test_a_file_that_its_holder_removed_is_not_locked_in_place_of_the_new_one(tmp_path: Path, monkeypatch) -> None:
    path = str(tmp_path / "lock")
    first, second = FileLock(path), FileLock(path)
    flock = fcntl.flock

    def late(*arguments: object) -> None:
        first.release(remove=True)  # nothing happens the second time
        flock(*arguments)

    assert first.acquire()
    monkeypatch.setattr(fcntl, "flock", late)
    assert second.acquire()
    assert os.stat(path).st_ino == os.fstat(second.descriptor).st_ino
    second.release(remove=True)
    assert os.listdir(tmp_path) == []


def test_what_is_not_a_lock_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "weights")
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name, reason in (("link", "symbolic link"), ("nowhere", "symbolic link"), ("fifo", "not a regular file")):
        for wait in (True, False):
            with pytest.raises(OSError, match=reason):
                FileLock(str(tmp_path / name)).acquire(wait)
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / TRAINING.file_name).symlink_to(tmp_path / "weights")
    with pytest.raises(
        ValueError, match=rf"^--output_dir: {tmp_path}/.training.lock cannot be written: a symbolic link"
    ):
        DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    with locked_file(str(tmp_path / "weights")):
        pass
    assert (tmp_path / "weights").read_text() == "precious" and not (tmp_path / "new").exists()


# --- One job in a directory ---


class Job:
    """Another process that holds the lock until it is told to end."""

    def __init__(self, output_dir: Path, before: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + HOLD, str(output_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == b"held\n"

    def end(self) -> None:
        self.process.communicate(b"\n", timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=[False, True], ids=["locks", "no_locks"])
def before(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Python that each process executes first."""
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.5)
    if not request.param:
        return ""
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    exec(NO_LOCKS, {})
    return NO_LOCKS


def test_a_second_job_is_refused_and_the_first_is_named(before: str, tmp_path: Path) -> None:
    first = Job(tmp_path, before)
    with pytest.raises(HeldError) as error:
        DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    assert f"--output_dir: {tmp_path} is in use: process {first.process.pid} on " in str(error.value)
    first.end()
    assert list(tmp_path.iterdir()) == []
    lock = DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_death_releases_the_lock(stop: int, before: str, tmp_path: Path) -> None:
    first = Job(tmp_path, before)
    first.process.send_signal(stop)
    first.process.wait()
    assert (tmp_path / TRAINING.file_name).exists()
    DirectoryLock(str(tmp_path), TRAINING, pytest.fail).release()


def test_a_stopped_job_holds_its_lock(before: str, tmp_path: Path) -> None:
    first = Job(tmp_path, before)
    first.process.send_signal(signal.SIGSTOP)
    with pytest.raises(HeldError):
        DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    first.kill()


def test_a_number_that_another_process_has_now_does_not_hold(tmp_path: Path, monkeypatch) -> None:
    first = Job(tmp_path, NO_LOCKS)
    first.kill()
    path = tmp_path / TRAINING.file_name
    holder = json.loads(path.read_text())
    path.write_text(json.dumps({**holder, "pid": os.getppid()}))
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    exec(NO_LOCKS, {})
    DirectoryLock(str(tmp_path), TRAINING, pytest.fail).release()


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_job_of_another_host_is_judged_by_its_heartbeat(is_alive: bool, before: str, tmp_path, monkeypatch) -> None:
    """NFS with local locks: the lock of the other host does not exist here, but its file is there and changes."""
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 1.0)
    path, said = tmp_path / TRAINING.file_name, []
    elsewhere = {**locks._this_process(), "host": "other", "pid": 77, "kernel": "another"}
    path.write_text(json.dumps(elsewhere))
    code = "import os, sys, time\nwhile True:\n    os.utime(sys.argv[1]); os.write(1, b'x'); time.sleep(0.1)"
    beating = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) if is_alive else None
    try:
        assert beating is None or beating.stdout.read(1)
        if is_alive:
            with pytest.raises(HeldError, match=r"in use: process 77 on other .*remove "):
                DirectoryLock(str(tmp_path), TRAINING, said.append)
        else:
            DirectoryLock(str(tmp_path), TRAINING, said.append).release()
    finally:
        if beating:
            beating.kill()
            beating.wait()
    assert len(said) == 1 and said[0].endswith("watching for 1 seconds whether it lives")


def test_what_an_older_version_left_does_not_hold_and_a_job_of_it_does(tmp_path: Path, monkeypatch) -> None:
    """Older versions name their holder as this one does, and hold a lock of another kind."""
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.5)
    old_lock = "import fcntl\nfcntl.flock = lambda file, how: fcntl.lockf(file, how)\n"
    older = Job(tmp_path, old_lock)
    with pytest.raises(HeldError, match=f"process {older.process.pid} on "):
        DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    older.kill()
    assert (tmp_path / TRAINING.file_name).read_text().startswith('{"host": ')
    DirectoryLock(str(tmp_path), TRAINING, pytest.fail).release()


def test_the_holder_s_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.05)
    lock = DirectoryLock(str(tmp_path), TRAINING, pytest.fail)
    path = tmp_path / TRAINING.file_name
    before, end = path.stat().st_mtime_ns, time.monotonic() + 60
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < end
        time.sleep(0.01)
    lock.release()


def test_a_full_disk_is_no_obstacle(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk") as disk:
        small_disk.fill(disk)
        DirectoryLock(str(disk), TRAINING, pytest.fail).release()
        assert [path.name for path in disk.iterdir()] == ["filler"]
