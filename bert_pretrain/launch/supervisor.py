"""Runs a job's launcher to its end: forwards signals to the ranks, and finds their exit code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Optional

import psutil

from bert_pretrain.distributed.rank_watch import EXIT_CODE_FOLDER, LOST_HOST
from bert_pretrain.system import files, processes

INVALID_INPUT = 2  # the trainer's exit code for flags or data that another attempt would reject again
_LOOK_SECONDS = 0.5
_END_SECONDS = 3.0  # in which mpirun may end a job by itself whose ranks have lost a host
# Sentences of other programs, where nothing else tells what they say. mpirun has lost a host that no rank of this
# machine watches: the ranks have not joined yet, or none runs here. It then never ends, or exits with 0.
_LOST_DAEMON = b"has lost communication with a remote daemon"
# horovodrun exits with 1 whatever its ranks exit with, also on other hosts.
_RANK_EXIT = re.compile(rb"^Exit code: (\d+)\s*$", re.MULTILINE)
_TAIL_BYTES = 1000  # of stderr that are searched for them
_PR_SET_PDEATHSIG = 1


class LaunchCommand(NamedTuple):
    """A command that starts all ranks, and the environment variables that it adds."""

    arguments: Sequence[str]
    environ: Mapping[str, str]


class Supervisor:
    """Runs commands. A signal asks the ranks to stop; the second SIGTERM or SIGINT ends the job at once."""

    def __init__(self, trainer: str) -> None:
        """From now on this process receives the signals. The ranks are the processes `python -m trainer` below it."""
        self._trainer = trainer
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._num_urgent = 0
        self.is_stopped = False  # a signal has come
        for number in processes.heeded_signals():
            signal.signal(number, self._on_signal)

    def run(self, command: LaunchCommand) -> int:
        """Runs the command once and returns its exit code, or the one of the rank that failed."""
        with files.temporary_directory() as folder:
            self._process = process = subprocess.Popen(
                command.arguments,
                env={**os.environ, **command.environ, EXIT_CODE_FOLDER: folder},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # mpirun itself ends the job when the reader of its stdout goes away
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C of the terminal then reaches the ranks only through this process
                preexec_fn=_end_with_parent,
            )
            if self.is_stopped:  # a signal came before the process was there to receive it
                process.terminate()
            tail, has_lost_host = _copy_output(process, Path(folder, str(LOST_HOST)))
            code = process.wait()
        if has_lost_host:
            return LOST_HOST
        of_rank = _RANK_EXIT.search(tail)
        if code == 1 and of_rank:
            return int(of_rank[1])
        return code if code >= 0 else 128 - code

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        """Sends SIGTERM to the ranks of this machine, which tell the others."""
        is_first, self.is_stopped = not self.is_stopped, True
        self._num_urgent += processes.is_urgent(number)
        if self._process is None or self._process.poll() is not None or not (is_first or self._num_urgent > 1):
            return
        ranks = _ranks_below(self._process.pid, self._trainer) if is_first else []
        if ranks:
            # print would fail where the signal interrupts the copying of output: its buffer cannot be entered twice.
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), b"Stopping after a checkpoint; a second SIGTERM stops at once.\n")
        # mpirun itself would follow SIGTERM with SIGKILL before a checkpoint is written.
        for pid in ranks or [self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _copy_output(process: subprocess.Popen[bytes], lost_host: Path) -> tuple[bytes, bool]:
    """Copies a job's stdout and stderr to ours until it ends. Returns the last bytes of stderr, and whether the job has
    lost a host.

    lost_host: a file that a rank makes which has lost one. The job is then ended, because mpirun waits for that host.
    """
    tail, end = b"", None
    assert process.stdout is not None and process.stderr is not None  # they are pipes
    outputs = {process.stdout: sys.stdout, process.stderr: sys.stderr}
    while outputs:
        for stream in select.select(list(outputs), [], [], _LOOK_SECONDS)[0]:
            piece = stream.read(65536)
            if not piece:
                del outputs[stream]
                continue
            outputs[stream].buffer.write(piece)
            outputs[stream].buffer.flush()
            if stream is process.stderr:
                searched = tail + piece
                tail = searched[-_TAIL_BYTES:]
                if end is None and _LOST_DAEMON in searched:
                    end = time.monotonic() + _END_SECONDS
        if end is None and lost_host.exists():
            end = time.monotonic() + _END_SECONDS
        if end is not None and time.monotonic() > end:
            _kill_tree(process.pid)
    return tail, end is not None or lost_host.exists()


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_tree(pid: int) -> None:
    """SIGKILL to process `pid` and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _ranks_below(pid: int, trainer: str) -> list[int]:
    """The topmost processes 'python -m trainer' that descend from process `pid`."""
    ranks = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[1:3] == ["-m", trainer]:
                    ranks[process.pid] = {parent.pid for parent in process.parents()}
    return [rank for rank in sorted(ranks) if not ranks[rank] & set(ranks)]
