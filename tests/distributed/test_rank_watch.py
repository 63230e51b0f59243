"""Ranks in processes of their own that watch each other, also on the loopback.

Real hosts are in tests/e2e/test_hosts.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from bert_pretrain.distributed import rank_watch
from bert_pretrain.distributed.rank_watch import RankProcess, StoppedRankWatch

ROOT = Path(__file__).parents[2]
# Rank N of three: 0 on node1, 1 and 2 on node2. Prints its endpoint, reads all endpoints, obeys.
RANK = """
import sys, time
from bert_pretrain.distributed import rank_watch
from bert_pretrain.distributed.rank_watch import Endpoint, Heartbeat, RankProcess
rank_watch._EXIT_SECONDS = 0.5
rank = int(sys.argv[1])
one = Heartbeat([RankProcess("node1 a", 1), RankProcess("node2 b", 2), RankProcess("node2 b", 3)], rank, 3)
print(repr(one.listen([("127.0.0.1",)] * 3)), flush=True)
found = one.connect(eval(sys.stdin.readline()))
while one._servers:  # until all that connect to this rank are in
    time.sleep(0.01)
print(found, flush=True)
for line in sys.stdin:
    if line == "lost\\n":
        one._end(b"error: host node2 is silent\\n")
    one.leave()
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    commands = [[sys.executable, "-c", RANK, str(rank)] for rank in range(3)]
    environ = {**os.environ, rank_watch.EXIT_CODE_FOLDER: str(tmp_path)}
    started = [subprocess.Popen(command, text=True, cwd=ROOT, env=environ, **pipes) for command in commands]
    endpoints = ", ".join(rank.stdout.readline().strip() for rank in started)
    for rank in started:
        rank.stdin.write(f"[{endpoints}]\n")
        rank.stdin.flush()
    assert [rank.stdout.readline() for rank in started] == ["None\n"] * 3
    yield started
    for rank in started:
        rank.kill()
        rank.communicate()


def say(rank: subprocess.Popen, line: str) -> None:
    rank.stdin.write(line + "\n")
    rank.stdin.flush()


def test_a_rank_that_finds_a_host_silent_ends_all_and_speaks_alone(ranks: list, tmp_path: Path) -> None:
    say(ranks[0], "lost")
    assert [rank.wait(timeout=20) for rank in ranks] == [rank_watch.LOST_HOST] * 3
    assert [rank.stderr.read() for rank in ranks] == ["error: host node2 is silent\n", "", ""]
    assert os.listdir(tmp_path) == ["75"]


def test_goodbye_is_no_alarm(ranks: list, tmp_path: Path) -> None:
    for rank in ranks:
        say(rank, "leave")
    assert [rank.communicate(timeout=20)[1] for rank in ranks] == [""] * 3
    assert [rank.returncode for rank in ranks] == [0] * 3
    assert os.listdir(tmp_path) == []


def test_a_rank_whose_neighbour_has_died_ends_where_no_launcher_ends_it(ranks: list) -> None:
    ranks[2].kill()
    assert [rank.wait(timeout=20) for rank in ranks[:2]] == [rank_watch.LOST_HOST] * 2
    died = "error: rank 2 on node2 has ended, and the launcher did not end the others; the job ends with exit code 75\n"
    assert [rank.stderr.read() for rank in ranks[:2]] == ["", died]


TWO_HOSTS = [RankProcess("node1 a", 1), RankProcess("node2 b", 2)]
LOOPBACK = [("127.0.0.1",), ("127.0.0.1",)]


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[rank_watch.Heartbeat, rank_watch.Endpoint]]:
    """Rank 0 of two, whose other rank is on another host and has not come yet."""
    one = rank_watch.Heartbeat(TWO_HOSTS, 0, 60)
    endpoint = one.listen(LOOPBACK)
    assert endpoint
    yield one, endpoint
    one.leave()
    one.close_door()


def answer(stranger: socket.socket, secret: bytes, rank: int) -> bytes:
    """What a stranger is told who answers the challenge with that secret."""
    challenge = stranger.recv(rank_watch._SECRET_BYTES, socket.MSG_WAITALL)
    proof = rank_watch._prove(secret, b"rank", challenge, rank)
    stranger.sendall(rank_watch._GREETING.pack(rank, proof))
    return stranger.recv(100)


def test_who_does_not_know_the_secret_or_is_not_expected_is_not_let_in(listening: tuple) -> None:
    one, endpoint = listening
    for secret, rank in ((b"x" * 32, 1), (endpoint.secret, 0), (endpoint.secret, 7)):
        with socket.create_connection(endpoint.outside[0]) as stranger:
            assert answer(stranger, secret, rank) == b""
    assert not one._connections


def is_refused(address: tuple[str, int]) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(address):
        return False
    return True


def test_strangers_keep_no_rank_out(listening: tuple) -> None:
    """Some say nothing, more than are greeted at a time, one says too much; then the rank comes."""
    _, endpoint = listening
    with contextlib.ExitStack() as stack:
        for _ in range(rank_watch._MAX_GREETINGS + 10):
            stack.enter_context(socket.create_connection(endpoint.outside[0]))
        talker = stack.enter_context(socket.create_connection(endpoint.outside[0]))
        with contextlib.suppress(ConnectionError):
            talker.sendall(bytes(10 << 20))
        other = rank_watch.Heartbeat(TWO_HOSTS, 1, 60)
        begin = time.monotonic()
        assert other.connect([endpoint, None]) is None
        assert time.monotonic() < begin + rank_watch._CONNECT_SECONDS / 2
        until(lambda: is_refused(endpoint.outside[0]))  # all ranks are in
        other.leave()


def test_a_rank_does_not_join_who_does_not_know_the_secret(listening: tuple) -> None:
    _, endpoint = listening
    found = rank_watch.Heartbeat(TWO_HOSTS, 1, 60).connect([endpoint._replace(secret=b"x" * 32), None])
    assert found == "rank 1 on node2 does not reach rank 0 at 127.0.0.1"


def test_the_port_is_open_only_where_ranks_come_from(listening: tuple) -> None:
    def addresses(one: rank_watch.Heartbeat) -> set[str]:
        return {server.getsockname()[0] for server in one._servers}

    assert addresses(listening[0]) == {"127.0.0.1"}
    same_host = [RankProcess("node2 b", 3), RankProcess("node1 a", 1), RankProcess("node1 a", 2)]
    local = rank_watch.Heartbeat(same_host, 1, 60)
    assert local.listen([("10.1.2.3",), ("10.1.2.4",), ("10.1.2.4",)]).outside == ()
    assert addresses(local) == {"127.0.0.1"}
    local.close_door()
    assert rank_watch.Heartbeat(same_host, 2, 60).listen([("10.1.2.4",)] * 3) is None


def test_the_addresses_are_those_that_lead_to_the_other_hosts() -> None:
    assert rank_watch.addresses_towards(["127.0.0.2"], ["127.0.0.1", "10.9.9.9"]) == ("127.0.0.1",)
    assert rank_watch.addresses_towards(["10.9.9.9"], ["10.9.9.9"]) == ("10.9.9.9",)  # as of a bridge on each host


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_host_that_is_not_reached_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    endpoint = rank_watch.Endpoint((), (("127.0.0.1", port),), b"x" * 32)
    found = rank_watch.Heartbeat(TWO_HOSTS, 1, 3).connect([endpoint, None])
    assert found == "rank 1 on node2 does not reach rank 0 at 127.0.0.1"


def test_one_host_has_no_connection_and_one_rank_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_STALL_CHECK_TIME_SECONDS", "0")
    here, there = RankProcess("node1 a", 1), RankProcess("node2 b", 3)
    for seconds, of in ((20, [here]), (20, [here, here._replace(pid=2)]), (0, [here, here._replace(pid=2), there])):
        gathered = []

        def allgather(value: object, of: list = of, gathered: list = gathered) -> list:
            gathered.append(value)
            return of

        with rank_watch.watching_ranks(allgather, 0, len(of), seconds):
            assert gathered == ([] if len(of) == 1 else [rank_watch.this_rank_process()])


def test_ranks_of_two_hosts_are_connected_until_they_leave(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """Two threads, which are told that they run on different hosts."""
    monkeypatch.setenv("HOROVOD_STALL_CHECK_TIME_SECONDS", "0")
    monkeypatch.setattr(rank_watch, "own_addresses", lambda: ("127.0.0.1",))
    monkeypatch.setattr(rank_watch, "this_rank_process", lambda: RankProcess(threading.current_thread().name, 7))
    gathered, barrier, ended = [None, None], threading.Barrier(2, timeout=60), []

    def watch(rank: int) -> None:
        def allgather(value: object) -> list:
            gathered[rank] = value
            barrier.wait()
            found = list(gathered)
            barrier.wait()
            return found

        with rank_watch.watching_ranks(allgather, rank, 2, heartbeat_seconds=60):
            barrier.wait()
        ended.append(rank)

    threads = [threading.Thread(target=watch, args=[rank], name=f"node{rank}") for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == [0, 1] and capfd.readouterr().err == ""


# --- A stopped rank ---


@pytest.mark.parametrize("text", ["soon", "inf", "nan", "-1", "1e400"])
def test_an_invalid_number_of_seconds_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"HOROVOD_STALL_CHECK_TIME_SECONDS={text} in the environment"):
        rank_watch.stall_seconds({"HOROVOD_STALL_CHECK_TIME_SECONDS": text})
    assert rank_watch.stall_seconds({"HOROVOD_STALL_CHECK_TIME_SECONDS": "0.5"}) == (0.5, 600)


@contextlib.contextmanager
def watching(stop: bool, end_seconds: float) -> Iterator[subprocess.Popen]:
    """A process that watches another of its machine until its stdin is closed."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if stop:
        sleeper.send_signal(signal.SIGSTOP)
    program = f"""
import sys
from bert_pretrain.distributed import rank_watch
own = rank_watch.this_rank_process()
other = rank_watch.RankProcess(own.machine, {sleeper.pid})
rank_watch.StoppedRankWatch([own, other], 0, 0.2, {end_seconds}).start()
sys.stdin.read()
"""
    pipes = dict.fromkeys(("stdin", "stderr"), subprocess.PIPE)
    watcher = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True, **pipes)
    try:
        yield watcher
    finally:
        for process in (sleeper, watcher):
            process.kill()
            process.wait()


def test_a_stopped_rank_is_named_and_ends_the_job() -> None:
    with watching(stop=True, end_seconds=0.5) as watcher:
        assert watcher.wait(60) == 1
        first, last = watcher.stderr.read().splitlines()
    assert first.startswith("warning: rank 1 (process ") and last.startswith("error: rank 1 (process ")


def test_a_stopped_rank_is_only_named_if_the_end_is_switched_off() -> None:
    with watching(stop=True, end_seconds=0) as watcher:
        assert watcher.stderr.readline().startswith("warning: rank 1 (process ")
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(1.0)
        assert watcher.communicate(timeout=60)[1] == "" and watcher.returncode == 0


def test_a_running_rank_is_left_alone() -> None:
    with watching(stop=False, end_seconds=0.5) as watcher:
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(1.5)
        assert watcher.communicate(timeout=60)[1] == "" and watcher.returncode == 0


def test_ranks_of_other_machines_are_not_watched() -> None:
    own = rank_watch.this_rank_process()
    watch = StoppedRankWatch([own, RankProcess("elsewhere", os.getpid()), RankProcess(own.machine, 17)], 0, 60, 600)
    assert watch._pids == {0: os.getpid(), 2: 17}
