"""Connections between ranks in processes of their own, on the loopback. Real hosts are in tests/e2e/test_hosts.py."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bert_pretrain.distributed import heartbeat
from bert_pretrain.system.processes import Process

ROOT = Path(__file__).parents[2]
# Rank N of three: 0 on node1, 1 and 2 on node2. Prints its endpoint, reads all endpoints, obeys.
RANK = """
import sys, threading
from bert_pretrain.distributed import heartbeat
from bert_pretrain.distributed.heartbeat import Endpoint, Heartbeat
from bert_pretrain.system.processes import Process
heartbeat._EXIT_SECONDS = 0.5
rank = int(sys.argv[1])
one = Heartbeat([Process("node1 a", 1), Process("node2 b", 2), Process("node2 b", 3)], rank, 3)
print(repr(one.listen()), flush=True)
endpoints = eval(sys.stdin.readline())
print(one.connect([end and end._replace(addresses=("127.0.0.1",)) for end in endpoints]), flush=True)
for line in sys.stdin:
    if line == "lost\\n":
        one._end(b"error: host node2 is silent\\n")
    one.leave()
"""


@pytest.fixture
def ranks() -> Iterator[list[subprocess.Popen]]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    commands = [[sys.executable, "-c", RANK, str(rank)] for rank in range(3)]
    started = [subprocess.Popen(command, text=True, cwd=ROOT, **pipes) for command in commands]
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


def test_a_rank_that_finds_a_host_silent_ends_all_and_speaks_alone(ranks: list) -> None:
    say(ranks[0], "lost")
    assert [rank.wait(timeout=20) for rank in ranks] == [heartbeat.EXIT_CODE] * 3
    assert [rank.stderr.read() for rank in ranks] == ["error: host node2 is silent\n", "", ""]


def test_goodbye_is_no_alarm(ranks: list) -> None:
    for rank in ranks:
        say(rank, "leave")
    assert [rank.communicate(timeout=20)[1] for rank in ranks] == [""] * 3
    assert [rank.returncode for rank in ranks] == [0] * 3


def test_a_rank_whose_neighbour_has_died_ends_where_no_launcher_ends_it(ranks: list) -> None:
    ranks[2].kill()
    assert [rank.wait(timeout=20) for rank in ranks[:2]] == [heartbeat.EXIT_CODE] * 2
    died = "error: rank 2 on node2 has ended, and the launcher did not end the others; the job ends with exit code 75\n"
    assert [rank.stderr.read() for rank in ranks[:2]] == ["", died]


def test_a_stranger_is_not_let_in() -> None:
    one = heartbeat.Heartbeat([Process("node1 a", 1), Process("node2 b", 2)], 0, 3)
    endpoint = one.listen()
    for rank, meant, token in ((1, 0, b"x" * 16), (1, 1, endpoint.token), (7, 0, endpoint.token)):
        with socket.create_connection(("127.0.0.1", endpoint.port)) as stranger:
            stranger.sendall(heartbeat._GREETING.pack(token, rank, meant))
            assert stranger.recv(10) == b""


def test_a_host_that_is_not_reached_is_named() -> None:
    one = heartbeat.Heartbeat([Process("node1 a", 1), Process("node2 b", 2)], 1, 3)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = one.connect([heartbeat.Endpoint(("127.0.0.1",), port, b"x" * 16), None])
    assert found == "rank 1 on node2 does not reach rank 0 at 127.0.0.1"


def test_one_host_has_no_connection_and_no_exchange() -> None:
    ranks = [Process("node1 a", 1), Process("node1 a", 2)]
    for seconds, of in ((20, ranks), (20, []), (0, [*ranks, Process("node2 b", 3)])):
        with heartbeat.watching(lambda value: pytest.fail("an exchange"), of, 0, seconds):
            pass
