"""Rank and size from the launcher, the prefix of stderr lines, and the watch for stopped ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.system import processes
from bert_pretrain.system.processes import Process, StoppedRankWatch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environ", "rank", "size"),
    [
        ({}, 0, None),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}, 3, 8),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "4"}, 1, 4),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, 0, 1),
    ],
)
def test_launchers_tell_rank_and_size(environ: dict[str, str], rank: int, size: int) -> None:
    assert processes.launched_rank(environ) == rank
    assert processes.launched_size(environ) == size


@pytest.mark.parametrize("text", ["", "two", "-1", "1e3", "9" * 40])
def test_a_launcher_s_invalid_number_is_named(text: str) -> None:
    assert processes.launched_rank({"OMPI_COMM_WORLD_RANK": text}) == 0
    with pytest.raises(ValueError, match=f"PMI_SIZE={text} in the environment is not a number of processes"):
        processes.launched_size({"PMI_SIZE": text})


@pytest.mark.parametrize("text", ["soon", "inf", "nan", "-1", "1e400"])
def test_an_invalid_number_of_seconds_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"HOROVOD_STALL_CHECK_TIME_SECONDS={text} in the environment"):
        processes.stall_seconds({"HOROVOD_STALL_CHECK_TIME_SECONDS": text})
    assert processes.stall_seconds({"HOROVOD_STALL_CHECK_TIME_SECONDS": "0.5"}) == (0.5, 600)


def test_what_schedulers_set_is_removed_and_rank_0_says_so() -> None:
    environ = {"TF_CONFIG": '{"cluster": {}}', "WORLD_SIZE": "4", "TF_NUM_INTEROP_THREADS": "1"}
    (line,) = processes.forget_schedulers({**environ})
    assert line.startswith("note: TF_CONFIG, WORLD_SIZE in the environment ignored")
    assert list(processes.forget_schedulers({**environ, "PMI_RANK": "1"})) == []
    assert list(processes.forget_schedulers(environ)) and environ == {"TF_NUM_INTEROP_THREADS": "1"}
    assert list(processes.forget_schedulers(environ)) == []


def run(code: str) -> subprocess.CompletedProcess:
    program = f"import os, signal, sys\nfrom bert_pretrain.system import processes\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def watched(stop: bool, end_seconds: float) -> subprocess.CompletedProcess:
    """A process that watches another of its machine for a second."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        if stop:
            sleeper.send_signal(signal.SIGSTOP)
        return run(
            f"import time\nown = processes.this_process()\nother = processes.Process(own.machine, {sleeper.pid})\n"
            f"processes.StoppedRankWatch([own, other], 0, 0.2, {end_seconds}).start()\ntime.sleep(1.5)\nsys.exit(0)"
        )
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_stopped_rank_is_named_and_ends_the_job() -> None:
    ended = watched(stop=True, end_seconds=0.5)
    assert ended.returncode == 1
    first, last = ended.stderr.splitlines()
    assert first.startswith("warning: rank 1 (process ") and last.startswith("error: rank 1 (process ")


def test_a_stopped_rank_is_only_named_if_the_end_is_switched_off() -> None:
    ended = watched(stop=True, end_seconds=0)
    assert ended.returncode == 0
    assert len(ended.stderr.splitlines()) == 1


def test_a_running_rank_is_left_alone() -> None:
    ended = watched(stop=False, end_seconds=0.5)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ranks_of_other_machines_are_not_watched() -> None:
    own = processes.this_process()
    watch = StoppedRankWatch([own, Process("elsewhere", os.getpid()), Process(own.machine, 17)], 0, 60, 600)
    assert watch._pids == {0: os.getpid(), 2: 17}
