"""The processes of a job: rank and size from the launcher, and a watch for stopped ranks.

Standard library only: run.py asks for the rank before it imports TensorFlow.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

# Environment variables of Open MPI, of MPICH and Slurm (PMI), and of horovodrun --gloo.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")
# Set by Kubeflow's TFJob and PyTorchJob, SageMaker, Vertex AI and others, for ways of training that are not ours.
_SCHEDULERS = ("TF_CONFIG", "CLUSTER_SPEC", "WORLD_SIZE", "MASTER_ADDR")

# A rank that has not joined a collective is named after the first time, and the job ends after the second. 0: never.
# Horovod reads these variables itself.
STALL_SECONDS = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "600"}


def stall_seconds(environ: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """Seconds after which a stopped rank is named, and after which it ends the job."""
    warning, end = (_seconds(name, environ.get(name) or default) for name, default in STALL_SECONDS.items())
    return warning, end


def _seconds(name: str, text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d*)?", text, re.ASCII):
        raise ValueError(f"{name}={text} in the environment is not a number of seconds")
    return float(text)


def launched_size(environ: Mapping[str, str] = os.environ) -> Optional[int]:
    """The number of processes that the launcher started; None without a launcher. ValueError if it is no number."""
    given = {name: environ[name] for name in _SIZES if name in environ}
    for name, text in given.items():
        if not is_number(text):
            raise ValueError(f"{name}={text} in the environment is not a number of processes; unset it")
    return max(map(int, given.values()), default=None)


def launched_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This process's rank; 0 without a launcher."""
    return next((int(environ[name]) for name in _RANKS if is_number(environ.get(name, ""))), 0)


def is_number(text: str) -> bool:
    """True for a whole number of at most nine digits."""
    return bool(re.fullmatch(r"\d{1,9}", text, re.ASCII))


def forget_schedulers(environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Removes what schedulers tell TensorFlow about other hosts; a line for rank 0 to print where there was anything.

    tf.estimator reads TF_CONFIG, and its sessions would wait for the servers that are named there.
    """
    found = [name for name in _SCHEDULERS if environ.pop(name, None) is not None]
    if found and launched_rank(environ) == 0:
        yield (
            f"note: {', '.join(found)} in the environment ignored: only mpirun and horovodrun, with --horovod, start "
            f"several ranks"
        )


class Process(NamedTuple):
    """A process, as other processes of the same machine can find it."""

    machine: str  # host name and PID namespace, because containers number processes by themselves
    pid: int


def this_process() -> Process:
    """The calling process."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:
        container = ""
    return Process(f"{socket.gethostname()} {container}", os.getpid())


class StoppedRankWatch:
    """Warns when a rank of this machine is stopped (SIGSTOP, a frozen container), and ends the job if it stays so.

    Horovod's stall check cannot detect this case: its background threads wait for the stopped rank's thread.
    """

    def __init__(self, ranks: Sequence[Process], rank: int, warning_seconds: float, end_seconds: float) -> None:
        """`ranks` holds every rank's process, `rank` is this one; end_seconds=0 means that the job is never ended."""
        self._pids = {r: process.pid for r, process in enumerate(ranks) if process.machine == ranks[rank].machine}
        self._rank = rank
        self._warning_seconds, self._end_seconds = warning_seconds, end_seconds

    def start(self) -> None:
        """Starts a daemon thread that watches until the process ends."""
        if len(self._pids) > 1 and self._warning_seconds > 0:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        interval = self._warning_seconds / 4
        num_intervals_stopped = dict.fromkeys(self._pids, 0)
        while True:
            time.sleep(interval)
            stopped = {rank for rank, pid in self._pids.items() if _is_stopped(pid)}
            # Intervals are counted instead of time: a job that was stopped and continued as a whole has not waited.
            num_intervals_stopped = {r: num_intervals_stopped[r] + 1 if r in stopped else 0 for r in self._pids}
            if self._rank != min(set(self._pids) - stopped, default=None):
                continue  # the lowest running rank of a machine reports for all
            for rank in sorted(stopped):
                self._report(rank, num_intervals_stopped[rank] * interval, interval)

    def _report(self, rank: int, seconds: float, interval: float) -> None:
        pid = self._pids[rank]
        name = f"rank {rank} (process {pid})"
        if self._end_seconds and seconds >= self._end_seconds:
            _print(f"error: {name} was stopped for {seconds:.0f} seconds while the others waited; the job ends")
            os._exit(1)  # an orderly exit would wait for the stopped rank
        if self._warning_seconds <= seconds < self._warning_seconds + interval:
            _print(f"warning: {name} is stopped and the others wait for it; kill -CONT {pid} continues it")


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"  # T: stopped by a signal; t, stopped by a debugger, does not count


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
