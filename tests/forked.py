"""Python programs in processes forked from one that has imported TensorFlow, which alone takes seconds.

They have arguments, output and exit codes, receive signals and end as processes that Python starts do. Tests of the
start itself, and of TensorFlow's import, start Python.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).parent.parent


def run(
    code: str, arguments: Sequence[str] = (), seconds: float = 300, terminal: Optional[int] = None
) -> subprocess.CompletedProcess:
    """What `python -c code arguments` would do in this process's environment and current directory; its output.

    `terminal` is the descriptor of a terminal that takes the output instead.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        descriptors = [file.fileno() if terminal is None else terminal for file in (out, err)]
        program = {
            "code": code, "arguments": list(arguments), "environ": dict(os.environ), "cwd": os.getcwd(),
            "outputs": [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in descriptors],
        }  # fmt: skip
        exit_code = _parent().run(program, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(["python", "-c", code, *arguments], exit_code, *texts)


def run_module(
    name: str, arguments: Sequence[str] = (), before: str = "", seconds: float = 300
) -> subprocess.CompletedProcess:
    """What `python -m name arguments` would do; `before` is Python that the process executes first."""
    code = f"{before}\nimport runpy\nrunpy.run_module({name!r}, run_name='__main__', alter_sys=True)\n"
    return run(code, arguments, seconds)


class _Parent:
    """The process that forks, one child at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        atexit.register(self._process.kill)

    def run(self, program: dict[str, Any], seconds: float) -> int:
        """The exit code, negative for a signal."""
        self._process.stdin.write(json.dumps(program).encode() + b"\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
            self._process.stdout.readline()
            raise subprocess.TimeoutExpired(program["arguments"], seconds)
        return int(self._process.stdout.readline())


@functools.lru_cache(maxsize=None)
def _parent() -> _Parent:
    return _Parent()


# --- In the process that forks ---


def _serve() -> Optional[dict[str, Any]]:
    """Forks a child for each program that it is sent; returns the program in the child, None at the end."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in requests:
        program = json.loads(line)
        os.environ.clear()
        os.environ.update(program["environ"])
        child = os.fork()
        if not child:
            return program
        os.write(answers, b"%d\n" % child)
        status = os.waitpid(child, 0)[1]
        os.write(answers, b"%d\n" % (-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)))
    return None


def _execute(program: dict[str, Any]) -> None:
    for number, place in enumerate(program["outputs"], start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_NOCTTY), number)
    os.chdir(program["cwd"])
    sys.path[0] = ""
    sys.argv = ["-c", *program["arguments"]]
    exec(compile(program["code"], "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    from bert_pretrain.tensorflow_compat import tensorflow_import

    with tensorflow_import.imported_quickly():
        from bert_pretrain.distributed import connection  # noqa: F401
        from bert_pretrain.train import job, loop, replay  # noqa: F401
    if (_program := _serve()) is not None:
        _execute(_program)
