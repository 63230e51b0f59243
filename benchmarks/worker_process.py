"""The other side of the protocol: a worker as a process that is started, asked, paused and ended."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

from benchmarks.peers import environment
from benchmarks.settings import Settings

_ROOT = pathlib.Path(__file__).parents[1]


class WorkerProcess:
    """A running worker."""

    def __init__(self, name: str, module: str, settings: Settings, directory: pathlib.Path) -> None:
        """Starts the module and waits for its first line. Its settings and its log are files of the directory."""
        self.name = name
        path = directory / f"{name}.settings.json"
        dataclasses.replace(settings, worker=name).write(str(path))
        self._log = directory / f"{name}.log"
        python = environment.python_of(name) if name in environment.OWN else sys.executable
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", module, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_ROOT,
            )
        self.started = self._answer()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Ends the process, which holds nothing worth keeping."""
        self._process.kill()
        self._process.communicate()

    def ask(self, **request: object) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker {self.name} died; {self._log} ends with\n{self._log.read_text()[-2000:]}")
        return json.loads(line)
