"""Jobs of several processes on this machine: started under mpirun, watched, and looked after for what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import psutil

ROOT = Path(__file__).parents[2]
# What sums gradients over ranks in these tests: horovod or mpi.
EXCHANGE = os.environ.get("TEST_EXCHANGE", "horovod")
MPIRUN = str(Path(sys.executable).parent / "mpirun")
_FLAGS = ["--horovod", f"--exchange={EXCHANGE}", "--intra_op_threads=1"]


def mpirun(num_ranks: int) -> list[str]:
    """The beginning of a command that starts `num_ranks` processes of one thread each."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [MPIRUN, "-np", str(num_ranks), *root, "--oversubscribe", "--bind-to", "none"]


def trainer(arguments: list[str]) -> list[str]:
    """The command of one rank."""
    return [sys.executable, "-m", "bert_pretrain.run", *_FLAGS, *arguments]


def dying_trainer(arguments: list[str], before: str) -> list[str]:
    """The command of one rank that executes `before` first; RANK is known there."""
    code = (
        f"import os\nRANK = int(os.environ['OMPI_COMM_WORLD_RANK'])\n{before}\nimport runpy\n"
        "runpy.run_module('bert_pretrain.run', run_name='__main__', alter_sys=True)\n"
    )
    return [sys.executable, "-c", code, *_FLAGS, *arguments]


class Ended(NamedTuple):
    """A job that is over."""

    code: int
    out: str
    err: str
    seconds: float


class Started:
    """A job under way; its output goes to files, so that nothing waits for a reader."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        self._begin = time.monotonic()
        added = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        with open(self._out, "w") as out, open(self._err, "w") as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=folder,
                env={**os.environ, **added, **environ}, start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        """Until the job's stdout holds the pattern."""
        _until(lambda: re.search(pattern, self.out) or self.process.poll() is not None, seconds, self._err)
        assert re.search(pattern, self.out), self._err.read_text()[-3000:]

    @property
    def err(self) -> str:
        return self._err.read_text()

    def descendants(self) -> list[int]:
        """All processes below the one that was started."""
        return [process.pid for process in _descendants(self.process.pid)]

    def find(self, rank: int) -> Optional[int]:
        """The process of a rank, None before it is there."""
        found = []
        for process in _descendants(self.process.pid):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("OMPI_COMM_WORLD_RANK") == str(rank):
                    found.append(process.pid)
        return min(found, default=None)  # a rank's own children inherit its environment and come after it

    def pid_of(self, rank: int) -> int:
        """The process of a rank that is known to be there."""
        found = self.find(rank)
        assert found is not None, self.err[-3000:]
        return found

    def end(self, seconds: float = 180) -> Ended:
        """Waits for the end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for process in [*_descendants(self.process.pid), self.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            raise AssertionError(f"not over after {seconds} s:\n{self.out}\n{self.err}") from None
        return Ended(code, self.out, self.err, time.monotonic() - self._begin)


def start(command: list[str], folder: Path, **environ: str) -> Started:
    """Starts a job whose working directory and temporary files are in `folder`."""
    return Started(command, folder, environ)


def run(command: list[str], folder: Path, seconds: float = 180, **environ: str) -> Ended:
    """Starts a job and waits for its end."""
    return start(command, folder, **environ).end(seconds)


def run_jobs(
    num_ranks: int, jobs: list[dict], folder: Path, seconds: float = 180, **environ: str
) -> tuple[Ended, list[dict]]:
    """Runs tests/e2e/rank_jobs.py; its answers, one per job."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    module = [sys.executable, "-m", "tests.e2e.rank_jobs", str(folder / "jobs.json")]
    ended = run([*mpirun(num_ranks), *module], folder, seconds, **environ)
    assert ended.code == 0, ended.err[-3000:]
    return ended, json.loads((folder / "answers.json").read_text())


def left_behind(marker: str) -> list[str]:
    """Command lines of processes that have `marker` in theirs; waits a moment for them to go."""
    with contextlib.suppress(AssertionError):
        _until(lambda: not list(_with_marker(marker)), 10)
    return list(_with_marker(marker))


def _with_marker(marker: str) -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            line = " ".join(process.cmdline())
            if marker in line and process.pid != os.getpid():
                yield line


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended; a zombie has."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(condition: Callable[[], object], seconds: float, err: Path = Path(os.devnull)) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, err.read_text()[-3000:]
        time.sleep(0.05)
