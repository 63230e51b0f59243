"""Runs a job's launcher to its end: forwards signals to the ranks, finds their exit code, restarts after a crash."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Optional

INVALID_INPUT = 2  # the trainer's exit code for flags or data that another attempt would reject again


def run(command: Sequence[str], environ: Mapping[str, str], trainer: str, max_restarts: int) -> int:
    """Runs the command, again after each crash up to max_restarts times. Returns the last exit code.

    `environ` is added to this process's environment. The ranks are the processes `python -m trainer` below the command.
    """
    supervisor = Supervisor(command, environ, trainer)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, supervisor.on_signal)
    code = supervisor.run()
    for attempt in range(1, max_restarts + 1):
        if code in (0, INVALID_INPUT) or supervisor.num_signals:
            break
        print(
            f"The job ended with exit code {code}; restart {attempt} of {max_restarts} from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        code = supervisor.run()
    return code


class Supervisor:
    """Runs a command. The first SIGTERM or SIGINT asks its ranks to stop, the second ends the job at once."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], trainer: str) -> None:
        self._command, self._environ, self._trainer = list(command), dict(environ), trainer
        self._process: Optional[subprocess.Popen] = None
        self.num_signals = 0

    def run(self) -> int:
        """Runs the command once and returns its exit code, or the one of the rank that failed."""
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **self._environ},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C of the terminal then reaches the ranks only through this process
            preexec_fn=_end_with_parent,
        )
        if self.num_signals:  # a signal came before the process was there to receive it
            self._process.terminate()
        rank_code = _copy_stderr(self._process.stderr)
        code = self._process.wait()
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


def _copy_stderr(stream: IO[bytes]) -> Optional[int]:
    """Copies a job's stderr to ours until it ends. Returns the rank's exit code that horovodrun prints at the end."""
    tail = b""
    for piece in iter(lambda: stream.read1(65536), b""):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
        tail = (tail + piece)[-1000:]
    printed = re.search(rb"^Exit code: (\d+)\s*$", tail, re.MULTILINE)
    return int(printed[1]) if printed else None


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _ranks_below(pid: int, trainer: str) -> list[int]:
    """The topmost processes 'python -m trainer' that descend from process `pid`; none on systems without /proc."""
    parents: dict[int, int] = {}
    trainers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # the process has ended
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if words[1:3] == [b"-m", trainer.encode()]:
            trainers.append(int(folder.name))

    def ancestors(child: int) -> set[int]:
        found: set[int] = set()
        while child in parents and parents[child] not in found:
            child = parents[child]
            found.add(child)
        return found

    return [rank for rank in trainers if pid in ancestors(rank) and not ancestors(rank) & set(trainers)]
