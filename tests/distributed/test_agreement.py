"""Ranks that compare what they are about to do, and ranks that wait for one whose work takes long."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.stop import Interrupted, StopRequest
from bert_pretrain.distributed.world import World
from bert_pretrain.system.files import ReportBytes
from tests.e2e import ranks


class OneOf(World):
    """A rank of several, whose others answer what they are told to."""

    def __init__(self, rank: int, others: list[Any]) -> None:
        """`others` are the answers of all but this rank, by rank."""
        self.rank, self.size, self._others = rank, len(others) + 1, others

    def allgather(self, value: Any) -> list[Any]:
        return [*self._others[: self.rank], value, *self._others[self.rank :]]


def fail(message: str) -> None:
    raise ValueError(message)


def test_what_is_wrong_everywhere_is_said_once() -> None:
    with pytest.raises(ValueError, match=r"^no such directory$"):
        agreement.on_all_ranks(OneOf(0, ["no such directory"]), lambda: fail("no such directory"))


def test_what_is_wrong_on_one_rank_is_said_by_root_with_its_number() -> None:
    with pytest.raises(ValueError, match=r"^rank 2 of 3: no such directory$"):
        agreement.on_all_ranks(OneOf(0, [None, "no such directory"]), lambda: 5)
    with pytest.raises(SystemExit) as ended:
        agreement.on_all_ranks(OneOf(1, [None, None]), lambda: fail("no such directory"))
    assert ended.value.code == 2


def test_where_nothing_is_wrong_each_rank_has_its_own_result() -> None:
    assert agreement.on_all_ranks(OneOf(1, [None]), lambda: 5) == 5


def test_what_root_finds_is_known_to_all_without_their_looking() -> None:
    assert agreement.from_root(World(), lambda: 5) == 5

    class Told(OneOf):
        def allgather(self, value: Any) -> list[Any]:
            assert value is None  # neither an error nor a result
            return [self._others.pop(0), value]

    told = Told(1, [None])
    told._others = [None, 5]
    assert agreement.from_root(told, lambda: fail("another rank looked")) == 5


def test_root_s_error_needs_no_number() -> None:
    with pytest.raises(ValueError, match=r"^no checkpoint$"):
        agreement.from_root(OneOf(0, [None]), lambda: fail("no checkpoint"))


def test_a_rank_that_is_asked_to_stop_ends_all_of_them_without_an_error() -> None:
    with pytest.raises(Interrupted):
        agreement.on_all_ranks(OneOf(0, [agreement._INTERRUPTED]), lambda: 5)
    stopped = OneOf(1, [None])
    stopped.stop = StopRequest()
    stopped.stop.requested = True
    with pytest.raises(Interrupted):
        agreement.on_all_ranks(stopped, lambda: fail("nobody works any more"))
    stopped.stop.has_updates = True  # which a checkpoint saves first
    assert agreement.on_all_ranks(stopped, lambda: 5) == 5


# --- The same job everywhere ---


class Comparing(OneOf):
    """A rank whose others have these facts and find nothing wrong."""

    def allgather(self, value: Any) -> list[Any]:
        gathered, self._others = super().allgather(value), [None] * len(self._others)
        return gathered


FACTS = {"--seed": 0, "--amp": True, "model hidden_size": 8, "version of numpy": "1.26.4"}


def test_ranks_that_agree_go_on() -> None:
    agreement.check_same_facts(Comparing(0, [FACTS, FACTS]), FACTS)


def test_the_first_rank_that_differs_is_named_with_all_that_matters() -> None:
    other = {"--seed": 1, "--amp": False, "model hidden_size": 16, "version of numpy": "1.24"}
    with pytest.raises(ValueError) as error:
        agreement.check_same_facts(Comparing(0, [FACTS, other, {}]), FACTS)
    assert str(error.value) == (
        "rank 2 differs from rank 0 in --seed (1, rank 0 has 0), --amp (False, rank 0 has True), "
        "model hidden_size (16, rank 0 has 8) and 1 more; start every rank with the same settings, files and versions"
    )


def test_what_only_one_of_two_has_differs_too() -> None:
    with pytest.raises(ValueError, match=r"in variable x \((None, rank 0 has \[2\])\);"):
        agreement.check_same_facts(Comparing(0, [FACTS]), {**FACTS, "variable x": [2]})


# --- Work that may take long ---

_RANK = """
import time
from bert_pretrain.distributed import agreement, connection
agreement._LINE_SECONDS = 1.0
with connection.connected(True, {exchange!r}) as world:
    def work(report):
        for done in range(1, 51 if world.rank else 2):
            report("indexing --input_files_dir", done * 10**8, 5 * 10**9)
            time.sleep(0.1)
        if world.rank and {fails}:
            raise ValueError("no such file")
        return world.rank
    results = world.allgather(agreement.long_task_on_all_ranks(world, work))
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
@pytest.mark.slow
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
    monkeypatch.setattr(agreement, "_LINE_SECONDS", 0.0)
    monkeypatch.setattr(agreement, "_EXCHANGE_SECONDS", 0.05)

    def work(report: ReportBytes) -> int:
        threading.Event().wait(0.12)
        report("indexing --eval_files_dir", 5 * 10**8, 2 * 10**9)
        threading.Event().wait(0.1)
        return 7

    assert agreement.long_task_on_all_ranks(World(), work) == 7
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "opening model and data"
    assert lines[-1] == "indexing --eval_files_dir: 0.5 of 2.0 GB"


def test_an_error_of_another_rank_ends_a_task_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_EXCHANGE_SECONDS", 0.05)
    ended = threading.Event()

    def work(report: ReportBytes) -> None:
        try:
            while True:
                report("indexing", 1, 2)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    with pytest.raises(ValueError, match=r"^rank 1 of 2: no such directory$"):
        agreement.long_task_on_all_ranks(Lonely((True, True, agreement._Progress()), "no such directory"), work)
    assert ended.wait(5)


def test_errors_are_raised_where_they_are_due() -> None:
    def work(report: ReportBytes) -> None:
        raise ValueError("no such directory")

    with pytest.raises(ValueError, match=r"^no such directory$"):
        agreement.long_task_on_all_ranks(World(), work)
