"""Which hosts answer; a program stands in for ssh. Real hosts are in tests/e2e/test_hosts.py."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from bert_pretrain.launch import hosts


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An agent for mpirun that reaches the hosts that are files in a folder."""
    (tmp_path / "agent").write_text('#!/bin/sh\nfor host; do last=$name; name=$host; done\ntest -e "$0.$last"\n')
    (tmp_path / "agent").chmod(0o755)
    for name in ("node1", "node2"):
        (tmp_path / f"agent.{name}").touch()
    return {"MPIRUN_ARGS": f"--mca plm_ssh_agent '{tmp_path}/agent : rsh' --tag-output"}


def never() -> bool:
    return False


def test_a_host_that_does_not_answer_any_more_is_missing(environ: dict, tmp_path: Path) -> None:
    found = hosts.ReachableHosts(["node1", "node2", "node3", "localhost", socket.gethostname()], environ)
    assert found.missing(0, never) == []  # node3 never answered: it is reached in another way
    (tmp_path / "agent.node2").unlink()
    assert found.missing(0, never) == ["node2"]


def test_a_restart_waits_for_a_missing_host(environ: dict, tmp_path: Path, capsys) -> None:
    found = hosts.ReachableHosts(["node1", "node2"], environ)
    (tmp_path / "agent.node2").unlink()
    assert found.missing(60, lambda: (tmp_path / "agent.node2").touch() is not None) == []  # it comes back after a look
    assert capsys.readouterr().err == "node2 does not answer ssh; waiting 60 s for it (--rejoin_seconds).\n"


def test_a_signal_ends_the_wait(environ: dict, tmp_path: Path) -> None:
    found = hosts.ReachableHosts(["node1"], environ)
    (tmp_path / "agent.node1").unlink()
    begin = time.monotonic()
    assert found.missing(60, lambda: True) == ["node1"]
    assert time.monotonic() - begin < 30


def test_a_program_that_does_not_exist_reaches_no_host() -> None:
    assert hosts.ReachableHosts(["node1"], {"PRTE_MCA_plm_ssh_agent": "/nowhere/ssh"}).missing(0, never) == []


def test_a_hostfile_is_written_as_it_is_read(tmp_path: Path) -> None:
    slots = {"10.0.0.1": 8, "node2": 4}
    hosts.write_hostfile(str(tmp_path / "hosts"), slots)
    assert hosts.read_hostfile(str(tmp_path / "hosts"), 1) == slots
