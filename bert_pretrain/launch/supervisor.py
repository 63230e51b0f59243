"""Runs a job's launcher to its end: forwards signals to the ranks, finds their exit code, restarts after a crash."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Callable, NamedTuple, Optional

from bert_pretrain.distributed import heartbeat

_LOST_HOST = re.compile(re.escape(heartbeat.LAST_WORDS).encode() + b"|has lost communication with a remote daemon")
_END_SECONDS = 3.0  # in which mpirun may end a job by itself whose ranks have lost a host
INVALID_INPUT = 2  # the trainer's exit code for flags or data that another attempt would reject again


class Command(NamedTuple):
    """A command that starts all ranks, and the environment variables that it adds."""

    arguments: Sequence[str]
    environ: Mapping[str, str]


def run(
    command: Command, trainer: str, max_restarts: int, again: Optional[Callable[[Callable[[], bool]], Command]] = None
) -> int:
    """Runs the command, again after each crash up to max_restarts times. Returns the last exit code.

    The ranks are the processes `python -m trainer` below the command. again(is_stopped) returns the command of a
    restart, which may be after a while; it returns at once when is_stopped() is true.
    """
    supervisor = Supervisor(trainer)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, supervisor.on_signal)
    code = supervisor.run(command)
    for attempt in range(1, max_restarts + 1):
        if code in (0, INVALID_INPUT) or supervisor.num_signals:
            break
        print(
            f"The job ended with exit code {code}; restart {attempt} of {max_restarts} from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        if again:
            command = again(lambda: supervisor.num_signals > 0)
        if supervisor.num_signals:
            break
        code = supervisor.run(command)
    return code


class Supervisor:
    """Runs commands. The first SIGTERM or SIGINT asks the ranks to stop, the second ends the job at once."""

    def __init__(self, trainer: str) -> None:
        self._trainer = trainer
        self._process: Optional[subprocess.Popen] = None
        self.num_signals = 0

    def run(self, command: Command) -> int:
        """Runs the command once and returns its exit code, or the one of the rank that failed."""
        self._process = process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environ},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C of the terminal then reaches the ranks only through this process
            preexec_fn=_end_with_parent,
        )
        if self.num_signals:  # a signal came before the process was there to receive it
            process.terminate()
        # mpirun waits for ever for the daemon of a host that is lost.
        end = threading.Timer(_END_SECONDS, _kill_tree, [process.pid])
        rank_code = _copy_stderr(process.stderr, end)
        code = process.wait()
        if end.ident:  # it was started
            end.cancel()
            return heartbeat.EXIT_CODE
        if code == 1 and rank_code:  # horovodrun exits with 1 whatever its ranks exit with
            return rank_code
        return code if code >= 0 else 128 - code

    def on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        """Signal handler: sends SIGTERM to the ranks of this machine, which tell the others."""
        self.num_signals += 1
        if self._process is None or self._process.poll() is not None:
            return
        ranks = [] if self.num_signals > 1 else _ranks_below(self._process.pid, self._trainer)
        if ranks:
            # print would fail where the signal interrupts the copying of stderr: its buffer cannot be entered twice.
            os.write(sys.stderr.fileno(), b"Stopping after a checkpoint; a second signal stops at once.\n")
        # mpirun itself would follow SIGTERM with SIGKILL before a checkpoint is written.
        for pid in ranks or [self._process.pid]:
            os.kill(pid, signal.SIGTERM)


def _copy_stderr(stream: IO[bytes], on_lost_host: threading.Timer) -> Optional[int]:
    """Copies a job's stderr to ours until it ends. Returns the rank's exit code that horovodrun prints at the end.

    Starts the timer at the line of a rank, or of mpirun, that has lost a host; mpirun then exits with 0.
    """
    tail = b""
    for piece in iter(lambda: stream.read1(65536), b""):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
        tail += piece
        if _LOST_HOST.search(tail) and not on_lost_host.ident:
            on_lost_host.start()
        tail = tail[-1000:]
    printed = re.search(rb"^Exit code: (\d+)\s*$", tail, re.MULTILINE)
    return int(printed[1]) if printed else None


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _kill_tree(pid: int) -> None:
    """SIGKILL to process `pid` and all that descend from it."""
    found = _processes()
    below = [child for child in found if pid in _ancestors(child, found)]
    for number in (pid, *below):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _ranks_below(pid: int, trainer: str) -> list[int]:
    """The topmost processes 'python -m trainer' that descend from process `pid`; none on systems without /proc."""
    found = _processes()
    trainers = {child for child, process in found.items() if process.command[1:3] == [b"-m", trainer.encode()]}
    above = {rank: _ancestors(rank, found) for rank in trainers}
    return [rank for rank in sorted(trainers) if pid in above[rank] and not above[rank] & trainers]


class _Process(NamedTuple):
    parent: int
    command: list[bytes]


def _processes() -> dict[int, _Process]:
    """All processes that can be seen, by number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            words = (folder / "cmdline").read_bytes().split(b"\0")
            found[int(folder.name)] = _Process(int(stat.rpartition(")")[2].split()[1]), words)
    return found


def _ancestors(child: int, processes: Mapping[int, _Process]) -> set[int]:
    found: set[int] = set()
    while child in processes and processes[child].parent not in found:
        child = processes[child].parent
        found.add(child)
    return found
