"""Ranks that wait for a rank whose work takes long."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bert_pretrain.distributed import long_task
from bert_pretrain.distributed.world import World
from tests.e2e import ranks

_RANK = """
import time
from bert_pretrain.distributed import connection
from bert_pretrain.distributed import long_task
long_task._LINE_SECONDS = 1.0
with connection.connected(True, {exchange!r}) as world:
    def work(report):
        for done in range(1, 51 if world.rank else 2):
            report("indexing --input_files_dir", done * 10**8, 5 * 10**9)
            time.sleep(0.1)
        if world.rank and {fails}:
            raise ValueError("no such file")
        return world.rank
    results = world.allgather(long_task.on_all_ranks(world, work))
    assert results == [0, 1], results
"""


class Lonely(World):
    """A rank of two; the other answers what it is told to."""

    rank, size = 0, 2

    def __init__(self, *others: Any) -> None:
        self._others = list(others)

    def allgather(self, value: Any) -> list[Any]:
        return [value, self._others.pop(0)]


def _command(fails: bool) -> list[str]:
    return [*ranks.mpirun(2), sys.executable, "-c", _RANK.format(exchange=ranks.EXCHANGE, fails=fails)]


@pytest.mark.horovod
def test_the_stall_limit_does_not_end_ranks_that_wait(tmp_path: Path) -> None:
    """One rank works for five seconds; a rank that has not joined a collective ends the job after two."""
    pytest.importorskip({"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"), reason="needs Horovod and mpi4py")
    patience = {"HOROVOD_STALL_CHECK_TIME_SECONDS": "1", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "2"}
    ended = ranks.run(_command(fails=False), tmp_path, 60, **patience)
    assert ended.code == 0, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("indexing")]
    assert len(lines) in (3, 4, 5)
    assert lines[0].endswith(" of 5.0 GB (rank 1, the slowest)")
    assert lines == sorted(lines)


def test_a_process_alone_reports_too(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(long_task, "_LINE_SECONDS", 0.0)
    monkeypatch.setattr(long_task, "_EXCHANGE_SECONDS", 0.05)

    def work(report: long_task.Report) -> int:
        threading.Event().wait(0.12)
        report("indexing --eval_files_dir", 5 * 10**8, 2 * 10**9)
        threading.Event().wait(0.1)
        return 7

    assert long_task.on_all_ranks(World(), work) == 7
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "opening model and data"
    assert lines[-1] == "indexing --eval_files_dir: 0.5 of 2.0 GB"


def test_an_error_of_another_rank_ends_a_task_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_task, "_EXCHANGE_SECONDS", 0.05)
    ended = threading.Event()

    def work(report: long_task.Report) -> None:
        try:
            while True:
                report("indexing", 1, 2)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    with pytest.raises(ValueError, match=r"^rank 1 of 2: no such directory$"):
        long_task.on_all_ranks(Lonely((True, True, long_task._Progress()), "no such directory"), work)
    assert ended.wait(5)


def test_errors_are_raised_where_they_are_due() -> None:
    def work(report: long_task.Report) -> None:
        raise ValueError("no such directory")

    with pytest.raises(ValueError, match=r"^no such directory$"):
        long_task.on_all_ranks(World(), work)
