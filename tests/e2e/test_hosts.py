"""HOSTFILE runs over several hosts, which are network namespaces here: lost links, lost hosts, bad links, other hosts.

TEST_HOSTS=all adds the cases that take longer, with the default seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import psutil
import pytest

from tests import hosts
from tests.e2e import ranks, runs
from tests.e2e.test_rank_invariant import differing

pytest.importorskip(
    {"mpi": "mpi4py"}.get(ranks.EXCHANGE, "horovod"), reason="needs Horovod and mpi4py: bash init_tf.sh --horovod"
)
_WHY_NOT = hosts.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.horovod, pytest.mark.skipif(bool(_WHY_NOT), reason=str(_WHY_NOT))]
long = pytest.mark.skipif(os.environ.get("TEST_HOSTS") != "all", reason="takes minutes: TEST_HOSTS=all runs it")

UPDATES, EVERY = 300, 50
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
Data = dict


def settings(data: Data, output_dir: Path, num_ranks: int, **changes: object) -> dict[str, object]:
    """Updates of 12 examples in 4 micro-batches, whatever the number of ranks."""
    return {
        **data, **runs.settings(num_train_steps=UPDATES, num_accumulation_steps=4 // num_ranks), "lr_scaling": "none",
        "output_dir": str(output_dir), "save_checkpoints_steps": EVERY, "rank_invariant": True, "learning_rate": 1e-3,
        **changes,
    }  # fmt: skip


@pytest.fixture
def two(tmp_path: Path) -> Iterator[hosts.Hosts]:
    with hosts.made(2, tmp_path / "hosts") as found:
        yield found


@pytest.fixture
def three(tmp_path: Path) -> Iterator[hosts.Hosts]:
    with hosts.made(3, tmp_path / "hosts") as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on one rank of one host."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**settings(data, output_dir, 1))
    return output_dir


class Job:
    """A job that the launcher on one of the hosts starts on all of them, with one rank each."""

    def __init__(self, found: hosts.Hosts, folder: Path, values: dict, *flags: str, launcher: int = 0) -> None:
        self.output_dir = folder / "out"
        arguments = [f"--exchange={ranks.EXCHANGE}", *runs.flags(**values), *flags]
        command = found.all[launcher].inside(sys.executable, "-m", "bert_pretrain.launch", *arguments)
        self.started = ranks.start(command, folder, HOSTFILE=found.hostfile(), PATH=found.path)

    def wait_for_update(self, update: object, beginning: int = 0) -> None:
        """Until the update is reported after the first `beginning` characters."""
        pattern = rf"update {update}/"
        self._wait(lambda: re.search(pattern, self.started.out[beginning:]))

    def wait_for_line(self, pattern: str) -> str:
        """Until stderr has it; returns the line."""
        self._wait(lambda: re.search(pattern, self.started.err))
        return re.search(rf".*{pattern}.*", self.started.err)[0]

    def _wait(self, is_there: Callable[[], object], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not is_there():
            assert self.started.process.poll() is None and time.monotonic() < end, self.started.err[-3000:]
            time.sleep(0.05)

    def kill_rank(self, rank: int, pids: list[int]) -> None:
        """SIGKILL to a rank, which is one of these processes."""
        found = [pid for pid in pids if psutil.Process(pid).environ().get("OMPI_COMM_WORLD_RANK") == str(rank)]
        os.kill(min(found), signal.SIGKILL)


def assert_same_end(job: Job, undisturbed: Path) -> None:
    ended = job.started.end()
    assert ended.code == 0, ended.err[-3000:]
    assert differing(undisturbed / f"model.ckpt-{UPDATES}", job.output_dir / f"model.ckpt-{UPDATES}") == []


def starts(job: Job) -> list[int]:
    """The numbers of ranks of a run's starts."""
    return [start["ranks"] for start in json.loads((job.output_dir / "run.json").read_text())["starts"]]


def test_a_lost_link_is_named_and_the_job_goes_on_with_one_host(two, data, undisturbed, tmp_path) -> None:
    values = settings(data, tmp_path / "out", 2, heartbeat_seconds=4)
    job = Job(two, tmp_path, values, "--max_restarts=1", "--rejoin_seconds=1")
    job.wait_for_update(120)
    two.all[1].link("down")
    line = job.wait_for_line("has been silent")
    assert line == "error: host node2 (rank 1) has been silent for 4 s; the job ends with exit code 75"
    line = job.wait_for_line("It goes on with")
    assert line == (
        "It goes on with 10.99.0.11; without 10.99.0.12; "
        "12 examples an update as before: 1 ranks x 4 micro-batches x 3."
    )
    assert_same_end(job, undisturbed)
    assert starts(job) == [2, 1]
    left = [psutil.Process(pid).cmdline() for host in two.all for pid in host.processes()]
    assert not [words for words in left if "bert_pretrain.run" in words]


def test_a_slow_link_that_loses_packets_ends_no_job(two, data, undisturbed, tmp_path) -> None:
    if not (two.all[1].lose_packets(10) and two.all[0].limit_rate("20mbit")):
        pytest.skip("the kernel or nft and tc lack what drops packets and limits rates")
    # A message that is lost three times in a row needs seconds; the default is 20.
    job = Job(two, tmp_path, settings(data, tmp_path / "out", 2, num_train_steps=20, heartbeat_seconds=10))
    ended = job.started.end(150)
    assert ended.code == 0, ended.err[-3000:]
    assert "silent" not in ended.err and "heartbeat" not in ended.err


def test_another_version_on_one_host_is_named(two, data, tmp_path) -> None:
    init = ranks.ROOT / "bert_pretrain" / "__init__.py"
    two.all[1].replace(init, re.sub('__version__ = ".*"', '__version__ = "0.0.1"', init.read_text()))
    ended = Job(two, tmp_path, settings(data, tmp_path / "out", 2), "--max_restarts=3").started.end(90)
    assert ended.code == 2, ended.err[-3000:]
    assert re.search(r"error: rank 1 differs from rank 0 in version of bert_pretrain \('0.0.1', rank 0 has", ended.err)


# --- Longer ---


@long
def test_default_seconds(two, data, undisturbed, tmp_path, record_property) -> None:
    job = Job(two, tmp_path, settings(data, tmp_path / "out", 2), "--max_restarts=1")
    job.wait_for_update(120)
    two.all[1].link("down")
    begin = time.monotonic()
    job.wait_for_line("host node2 .rank 1. has been silent for 20 s")
    record_property("named after s", named := round(time.monotonic() - begin, 1))
    said = len(job.started.out)
    job.wait_for_update(r"1\d\d", said)
    record_property("trains again after s", again := round(time.monotonic() - begin, 1))
    print(f"named after {named} s, trains again after {again} s")
    assert named < 30 and again < 60
    assert_same_end(job, undisturbed)


@long
def test_the_host_of_rank_0_is_lost(three, data, tmp_path) -> None:
    """The launcher runs on node3; two hosts go on with 12 micro-batches, which 3, 2 and 1 divide."""
    values = {"num_accumulation_steps": 12, "train_batch_size": 1}
    runs.train(**settings(data, tmp_path / "undisturbed", 1, **values))
    values = settings(data, tmp_path / "out", 3, **{**values, "num_accumulation_steps": 4}, heartbeat_seconds=4)
    job = Job(three, tmp_path, values, "--max_restarts=1", "--rejoin_seconds=1", launcher=2)
    job.wait_for_update(120)
    three.all[0].link("down")
    job.wait_for_line("host node1 .rank 0. has been silent for 4 s")
    job.wait_for_line("It goes on with 10.99.0.12, 10.99.0.13; without 10.99.0.11; 12 examples an update as before: 2")
    assert_same_end(job, tmp_path / "undisturbed")
    assert starts(job) == [3, 2]


@long
def test_a_host_that_is_killed_and_comes_back(two, data, undisturbed, tmp_path) -> None:
    values = settings(data, tmp_path / "out", 2, heartbeat_seconds=4, save_checkpoints_steps=20)
    job = Job(two, tmp_path, values, "--max_restarts=2", "--rejoin_seconds=1")
    job.wait_for_update(60)
    two.all[1].kill()
    job.wait_for_line("It goes on with 10.99.0.11; without 10.99.0.12")
    said = len(job.started.out)
    two.all[1].boot()
    job.wait_for_update(120, said)
    job.kill_rank(0, two.all[0].processes())
    job.wait_for_line("It goes on with 10.99.0.11, 10.99.0.12; 12 examples an update as before: 2 ranks x 2")
    assert_same_end(job, undisturbed)
    assert starts(job) == [2, 1, 2]


@long
def test_a_host_without_power_is_waited_for(two, data, undisturbed, tmp_path) -> None:
    values = settings(data, tmp_path / "out", 2, heartbeat_seconds=4)
    job = Job(two, tmp_path, values, "--max_restarts=1", "--rejoin_seconds=60")
    job.wait_for_update(60)
    two.all[1].link("down")
    two.all[1].kill()
    job.wait_for_line("10.99.0.12 does not answer ssh; waiting 60 s for it")
    two.all[1].boot()
    two.all[1].link("up")
    job.wait_for_line("It goes on with 10.99.0.11, 10.99.0.12; 12 examples")
    assert_same_end(job, undisturbed)
    assert starts(job) == [2, 2]


@long
def test_a_link_that_is_back_in_time_ends_no_job(two, data, undisturbed, tmp_path) -> None:
    job = Job(two, tmp_path, settings(data, tmp_path / "out", 2))
    job.wait_for_update(120)
    two.all[1].link("down")
    time.sleep(10)
    two.all[1].link("up")
    assert_same_end(job, undisturbed)
    assert starts(job) == [2]


@long
@pytest.mark.skipif(not FAKETIME.exists(), reason="needs libfaketime: apt-get install faketime")
def test_clocks_that_differ_by_a_day(two, data, undisturbed, tmp_path) -> None:
    two.all[1].kill()
    two.all[1].boot(LD_PRELOAD=str(FAKETIME), FAKETIME="-1d", FAKETIME_DONT_FAKE_MONOTONIC="1")
    assert_same_end(Job(two, tmp_path, settings(data, tmp_path / "out", 2)), undisturbed)
