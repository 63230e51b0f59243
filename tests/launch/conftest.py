"""A program that stands in for ssh."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables with an agent for mpirun that reaches the hosts that are files agent.NAME in tmp_path."""
    (tmp_path / "agent").write_text('#!/bin/sh\nfor host; do last=$name; name=$host; done\ntest -e "$0.$last"\n')
    (tmp_path / "agent").chmod(0o755)
    for name in ("node1", "node2"):
        (tmp_path / f"agent.{name}").touch()
    return {"MPIRUN_ARGS": f"--mca plm_ssh_agent '{tmp_path}/agent : rsh' --tag-output"}
