"""Runs a script of several steps: python -m bert_pretrain.system.script DIRECTORY bash SCRIPT [ARGUMENTS].

One such script at a time works in DIRECTORY; an empty DIRECTORY needs no lock. SIGTERM, SIGINT (Ctrl-C) and SIGHUP end
the step that is running, with all its processes, and one line says which it was. A script's last program that handles
the signal itself, as training does, has the time that it needs. Standard library only.

Two processes: the outer one is in the user's process group, so that the terminal's signals come once, through it. The
inner one leads a session of its own. It ends the script when the outer one is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Optional

from bert_pretrain.system.locks import SCRIPT, locked_directory

RUNNER = "BERT_PRETRAIN_SCRIPT"  # environment variable of the script: the process that runs it
STAGE = "BERT_PRETRAIN_STAGE"  # another: the file descriptor to which it writes what it does now
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CLEAN_UP_SECONDS = 60.0  # for the steps of a script that has ended by a signal
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: Sequence[str]) -> int:
    """Runs the script and returns its exit code; 128 + the signal's number where a signal ended it."""
    directory, *command = arguments
    if RUNNER in os.environ:  # a script within a script: signals come to all of its processes already
        return _run(directory, command, is_nested=True)
    outer = os.getpid()
    inner = os.fork()
    if inner:
        return _accompany(inner)
    code = 1
    try:
        os.setsid()
        _end_with(outer)
        code = _run(directory, command, is_nested=False)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _accompany(inner: int) -> int:
    """The outer process: passes signals on, and stops and goes on with the terminal's job control."""

    def suspend(number: int, frame: Optional[FrameType]) -> None:
        os.kill(inner, signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(inner, signal.SIGCONT)

    for number in _ENDING:
        signal.signal(number, lambda number, frame: os.kill(inner, number))
    signal.signal(signal.SIGTSTP, suspend)
    return _exit_code(os.waitpid(inner, 0)[1])


def _run(directory: str, command: Sequence[str], is_nested: bool) -> int:
    with contextlib.ExitStack() as stack:
        try:
            if directory:
                stack.enter_context(locked_directory(directory, SCRIPT))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        script = _Script(command, is_nested)
        code = script.wait()
        if script.ended_by and code in (128 + signal.SIGTERM, 128 + script.ended_by):
            code = 128 + script.ended_by
            if not is_nested:
                script.say_where(directory or os.path.basename(command[1]))
        return code


class _Script:
    """The script's process and all below it."""

    def __init__(self, command: Sequence[str], is_nested: bool) -> None:
        self.ended_by = 0  # the signal's number
        self._main: Optional[int] = None
        self._is_nested, self._has_ended = is_nested, False
        for number in _ENDING:
            signal.signal(number, self._on_signal)
        if not is_nested:
            signal.signal(signal.SIGTSTP, lambda number, frame: self._signal_all(signal.SIGSTOP))
            signal.signal(signal.SIGCONT, lambda number, frame: self._signal_all(signal.SIGCONT))
        self._stages, writer = os.pipe()
        stage = os.environ.get(STAGE) if is_nested else str(writer)
        environ = {**os.environ, RUNNER: str(os.getpid()), STAGE: stage or str(writer)}
        self._main = subprocess.Popen(
            command,
            env=environ,
            pass_fds=[int(environ[STAGE])],
            start_new_session=not is_nested,
        ).pid
        os.close(writer)
        if self.ended_by:  # the signal came before there was a process to receive it
            self._signal_all(self.ended_by)

    def wait(self) -> int:
        """The script's exit code; after a signal, once all its processes have ended."""
        code = 1
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == self._main:
                    code, self._has_ended = _exit_code(status), True
                    if not self.ended_by or self._is_nested:
                        return code
                    signal.signal(signal.SIGALRM, lambda number, frame: self._signal_all(signal.SIGKILL))
                    signal.setitimer(signal.ITIMER_REAL, _CLEAN_UP_SECONDS)
        while self._signal_all(0):  # systems on which they do not become children of this process
            time.sleep(0.05)
        return code

    def say_where(self, subject: str) -> None:
        """The last line of a script that a signal has ended."""
        os.set_blocking(self._stages, False)
        try:
            stages = os.read(self._stages, 1 << 20).decode(errors="replace").splitlines()
        except BlockingIOError:
            stages = []
        name, where = signal.Signals(self.ended_by).name, f" while {stages[-1]}" if stages else ""
        print(f"{subject}: stopped by {name}{where}; the same command goes on", file=sys.stderr, flush=True)

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        is_first, self.ended_by = not self.ended_by, self.ended_by or number
        if self._main is not None and not self._is_nested:
            # Steps clean up once; a second signal is for a script that is patient, or for steps that are not done.
            self._signal_all(signal.SIGTERM if is_first or not self._has_ended else signal.SIGKILL)

    def _signal_all(self, number: int) -> bool:
        """Sends a signal to all processes of the script; False where there are none."""
        if self._main is None:
            return False
        try:
            os.killpg(self._main, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _end_with(parent: int) -> None:
    """Linux: this process gets SIGTERM when its parent ends, and becomes the parent of all below that lose theirs."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        library.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _exit_code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
