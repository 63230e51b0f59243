"""Scripts of several steps: the runner above a script, and what Python calls that does a script's steps.

python -m bert_pretrain.system.script DIRECTORY bash SCRIPT [ARGUMENTS] runs a script; run_steps of scripts/_launch.sh
calls it. One such script at a time works in DIRECTORY; an empty DIRECTORY needs no lock. SIGTERM, SIGINT (Ctrl-C),
SIGHUP, SIGUSR1 and SIGUSR2 end the step that is running, with all its processes, and one line says which it was. A
script's last program that handles the signal itself, as training does, has the time that it needs.

Standard library only: any Python runs a script, before an environment is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Optional

from bert_pretrain.system import processes, streams
from bert_pretrain.system.files import open_itself
from bert_pretrain.system.locks import SCRIPT, locked_directory

# Environment variables of a script.
RUNNER = "BERT_PRETRAIN_SCRIPT"  # it has a runner, which holds the lock of this DIRECTORY
STAGE = "BERT_PRETRAIN_STAGE"  # the file descriptor to which it writes what it does now
PROJECT = "BERT_PRETRAIN_PROJECT"  # the folder of init_tf.sh and scripts/
_CLEAN_UP_SECONDS = 60.0  # for the steps of a script that has ended by a signal
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


# --- For a script's steps in Python; scripts/_launch.sh has the same for bash ---

DRY_RUN = os.environ.get("DRY_RUN") == "1"  # commands are printed instead of run


def doing(stage: str) -> None:
    """Notes what the script does now, for the line that a signal ends it with."""
    if os.environ.get(STAGE):
        with contextlib.suppress(OSError):
            os.write(int(os.environ[STAGE]), f"{stage}\n".encode())


def launch(*command: str, output: Optional[str] = None, environ: Optional[Mapping[str, str]] = None) -> None:
    """Runs a step's command; SystemExit with its exit code if it fails.

    output: the file that gets its stdout. environ: variables beside this process's.
    """
    if DRY_RUN:
        streams.print_answer(shlex.join(command))
        return
    with contextlib.ExitStack() as stack:
        stdout = stack.enter_context(open(output, "wb", opener=open_itself)) if output else None
        # subprocess.run would kill the step at a signal, which the step has received, too, to clean up.
        code = stack.enter_context(
            subprocess.Popen(command, stdout=stdout, env={**os.environ, **(environ or {})})
        ).wait()
    if code < 0 and -code != signal.SIGTERM:
        print(f"error: {shlex.join(command)}: ended by {signal.Signals(-code).name}", file=sys.stderr, flush=True)
    if code:
        sys.exit(code if code > 0 else 128 - code)


def module_command(module: str) -> list[str]:
    """The command that runs a module, without modules of the current folder, which holds the user's files.

    Those of this package see to it themselves (bert_pretrain/__init__.py), and PYTHONSAFEPATH does from Python 3.11 on.
    """
    if module.startswith("bert_pretrain.") or sys.version_info >= (3, 11):
        return [sys.executable, "-m", module]
    run = "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import sys; del sys.path[0], sys.argv[0]; import runpy; {run}", module]


def launch_last(*command: str) -> None:
    """Replaces this process by a script's last program, so that signals and the exit code are its own."""
    if DRY_RUN:
        launch(*command)
    else:
        sys.stdout.flush()
        os.execvp(command[0], command)


def use_environment(*extras: str) -> str:
    """The Python of an environment with the extras (--data, --horovod, ...); init_tf.sh installs what is missing.

    This Python where no script says which project it belongs to. SystemExit where the installation fails.
    """
    if PROJECT not in os.environ:
        return sys.executable
    doing("setting the environment up")
    command = ["bash", os.path.join(os.environ[PROJECT], "init_tf.sh"), "--print-python", *extras]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


@contextlib.contextmanager
def locked_output(directory: str) -> Iterator[None]:
    """Keeps other scripts out of a folder, unless it is the one whose lock the runner holds. HeldError if one is there.

    A signal that asks to stop raises SystemExit meanwhile, so that the lock's file does not stay.
    """
    if DRY_RUN or os.environ.get(RUNNER) == directory:
        yield
        return
    with processes.handling_signals(lambda number, frame: sys.exit(128 + number)), locked_directory(directory, SCRIPT):
        yield


# --- The runner ---
# Two processes: the outer one is in the user's process group, so that the terminal's signals come once, through it. The
# inner one leads a session of its own. It ends the script when the outer one is killed.


def main(arguments: Sequence[str]) -> int:
    """Runs the script and returns its exit code; 128 + the signal's number where a signal ended it."""
    streams.secure_streams()
    directory, *command = arguments
    outer = os.getpid()
    inner = os.fork()
    if inner:
        return _accompany(inner)
    code = 1
    try:
        os.setsid()
        _end_with(outer)
        code = _run(directory, command)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _accompany(inner: int) -> int:
    """The outer process: passes signals on, and stops and goes on with the terminal's job control."""

    def suspend(number: int, frame: Optional[FrameType]) -> None:
        os.kill(inner, signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(inner, signal.SIGCONT)

    for number in processes.heeded_signals():
        signal.signal(number, lambda number, frame: os.kill(inner, number))
    signal.signal(signal.SIGTSTP, suspend)
    return _exit_code(os.waitpid(inner, 0)[1])


def _end_with(parent: int) -> None:
    """Linux: this process gets SIGTERM when its parent ends, and becomes the parent of all below that lose theirs."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        library.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _run(directory: str, command: Sequence[str]) -> int:
    """The inner process."""
    try:
        with locked_directory(directory, SCRIPT) if directory else contextlib.nullcontext():
            script = _Script(directory, command)
            code = script.wait()
            if script.ended_by and code in (128 + signal.SIGTERM, 128 + script.ended_by):
                code = 128 + script.ended_by
                script.say_where(directory or os.path.basename(command[1]))
            return code
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


class _Script:
    """The script's process and all below it."""

    def __init__(self, directory: str, command: Sequence[str]) -> None:
        self.ended_by = 0  # the first signal's number
        self._group: Optional[int] = None  # of the script's processes, and its main one
        self._has_ended = False  # the main one
        self._num_urgent = 0  # signals
        for number in processes.heeded_signals():
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGTSTP, lambda number, frame: self._signal_all(signal.SIGSTOP))
        signal.signal(signal.SIGCONT, lambda number, frame: self._signal_all(signal.SIGCONT))
        self._stages, writer = os.pipe()
        environ = {**os.environ, RUNNER: directory, STAGE: str(writer)}
        self._group = subprocess.Popen(command, env=environ, pass_fds=[writer], start_new_session=True).pid
        os.close(writer)
        if self.ended_by:  # the signal came before there was a process to receive it
            self._signal_all(self.ended_by)

    def wait(self) -> int:
        """The script's exit code; after a signal, once all its processes have ended."""
        code = 1
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == self._group:
                    code, self._has_ended = _exit_code(status), True
                    if not self.ended_by:
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
        self._num_urgent += processes.is_urgent(number)
        if not is_first and self._num_urgent < 2:
            return
        # Steps clean up once; a second signal is for a script that is patient, or for steps that are not done.
        self._signal_all(signal.SIGTERM if is_first or not self._has_ended else signal.SIGKILL)

    def _signal_all(self, number: int) -> bool:
        """Sends a signal to all processes of the script; False where there are none."""
        if self._group is None:
            return False
        try:
            os.killpg(self._group, number)
        except (ProcessLookupError, PermissionError):
            return False
        return self._group is not None


def _exit_code(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
