"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from bert_pretrain.kernels.backend import Backend
from tests import backends


@pytest.fixture(scope="module", params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend of kernels in turn."""
    backends.require(request.param)
    return request.param


def left_out(expression: str) -> list[str]:
    """A line for each kind of test that scripts/run_tests.sh has left out by pytest's -m."""
    return [
        f"Not run: tests marked {extra}, which need what 'bash init_tf.sh --{extra}' installs."
        for extra in ("horovod", "interop")
        if f"not {extra}" in expression
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which tests were left out."""
    for line in left_out(config.option.markexpr):
        terminalreporter.write_line(line)
