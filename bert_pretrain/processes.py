"""The processes of a job as launcher and operating system see them: who is which rank, who speaks, who stands still.

Standard library only, because the door asks before TensorFlow is wanted.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

# How launchers tell a process its rank and how many there are: Open MPI, MPICH and Slurm's PMI, horovodrun with Gloo.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")

# Copies lines and puts a name before each. It outlives its rank, so that the last words of one that dies are heard.
_NAMING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
name, rest = sys.argv[1].encode(), b""
while True:
    piece = os.read(0, 65536)
    *lines, rest = (rest + piece).split(b"\\n")
    if not piece and rest:
        lines.append(rest)
    if lines:
        os.write(1, b"".join(name + line + b"\\n" for line in lines))
    if not piece:
        break
"""


def launched_size(environ: Mapping[str, str] = os.environ) -> Optional[int]:
    """How many processes the launcher started; None where no launcher did."""
    return max((int(environ[name]) for name in _SIZES if name in environ), default=None)


def launched_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This process's rank as the launcher told it; 0 where no launcher did."""
    return next((int(environ[name]) for name in _RANKS if name in environ), 0)


def name_stderr(rank: int) -> None:
    """From now on each line of this process's stderr, TensorFlow's and Horovod's too, begins with '[rank N] '.

    Rank 0, which speaks for all, stays as it is.
    """
    if rank == 0:
        return
    sys.stderr.flush()
    naming = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _NAMING, f"[rank {rank}] "],
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),
        start_new_session=True,  # a signal to the rank's group is not meant for it: it ends when the rank has ended
    )
    os.dup2(naming.stdin.fileno(), sys.stderr.fileno())
    naming.stdin.close()


class Process(NamedTuple):
    """A process that other processes can look at, if they are on its machine."""

    machine: str  # and its container
    pid: int


def this_process() -> Process:
    """The running one."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:
        container = ""
    return Process(f"{socket.gethostname()} {container}", os.getpid())


class Watch:
    """Names a rank of this machine that was stopped (SIGSTOP, a frozen container), and ends the job if it stays so.

    Horovod's own stall check cannot: its background threads, a stopped one among them, wait for each other.
    """

    def __init__(self, ranks: list[Process], rank: int, warning_seconds: float, end_seconds: float) -> None:
        """`ranks` are the processes of all; end_seconds 0 means that the job is never ended."""
        self._pids = {r: process.pid for r, process in enumerate(ranks) if process.machine == ranks[rank].machine}
        self._rank = rank
        self._warning_seconds, self._end_seconds = warning_seconds, end_seconds

    def start(self) -> None:
        """Looks from a thread of its own until the process ends."""
        if len(self._pids) > 1 and self._warning_seconds > 0:
            threading.Thread(target=self._look_for_ever, name="watch", daemon=True).start()

    def _look_for_ever(self) -> None:
        pause = self._warning_seconds / 4
        stopped_looks = dict.fromkeys(self._pids, 0)
        while True:
            time.sleep(pause)
            stopped = {rank for rank, pid in self._pids.items() if _is_stopped(pid)}
            # Looks are counted instead of time, so that a job stopped and continued as a whole has not waited.
            stopped_looks = {rank: stopped_looks[rank] + 1 if rank in stopped else 0 for rank in self._pids}
            if self._rank != min(set(self._pids) - stopped, default=None):
                continue  # one voice a machine
            for rank in sorted(stopped):
                self._judge(rank, stopped_looks[rank] * pause, pause)

    def _judge(self, rank: int, seconds: float, pause: float) -> None:
        name = f"rank {rank} (process {self._pids[rank]})"
        if self._end_seconds and seconds >= self._end_seconds:
            _say(f"error: {name} was stopped for {seconds:.0f} seconds while the others waited; the job ends")
            os._exit(1)  # an orderly end would wait for the stopped rank
        if self._warning_seconds <= seconds < self._warning_seconds + pause:
            _say(f"warning: {name} is stopped and the others wait for it; kill -CONT {self._pids[rank]} lets it go on")


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"  # a debugger's stop is a small t


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
