"""Which hosts answer; a program stands in for ssh. Real hosts are in tests/e2e/test_hosts.py."""

from __future__ import annotations

import socket
from pathlib import Path

from bert_pretrain.launch import hosts


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
    waits = []
    assert found.missing(10_000, lambda: waits.append(1) or len(waits) == 2) == ["node1"]


def test_this_host_is_not_asked_under_any_of_its_addresses(environ: dict, tmp_path: Path) -> None:
    addresses = ["127.0.0.1", "192.0.2.1"]
    for address in addresses:
        (tmp_path / f"agent.{address}").touch()
    found = hosts.ReachableHosts(addresses, environ)
    for address in addresses:
        (tmp_path / f"agent.{address}").unlink()
    assert found.missing(0, never) == ["192.0.2.1"]


def test_a_program_that_does_not_exist_reaches_no_host() -> None:
    assert hosts.ReachableHosts(["node1"], {"PRTE_MCA_plm_ssh_agent": "/nowhere/ssh"}).missing(0, never) == []


def test_a_hostfile_is_written_as_it_is_read(tmp_path: Path) -> None:
    slots = {"10.0.0.1": 8, "node2": 4}
    hosts.write_hostfile(str(tmp_path / "hosts"), slots)
    assert hosts.read_hostfile(str(tmp_path / "hosts"), 1) == slots
