"""Fixtures of all tests, and how several processes share them."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any, Optional

import pytest

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.system import files

# Folders whose files take long. They begin first, so that no process is left with one of them at the end.
_LONG = ("tests/storage/", "tests/e2e/", "tests/pretrain_text/", "tests/make_data/", "tests/mlperf/", "tests/train/")
_MAX_PROCESSES = 4  # each needs one to two GB


# XLA_FUSED needs a GPU, or the stand-in of tests/kernels/test_fused.py.
CPU_BACKENDS = [backend for backend in Backend if backend is not Backend.XLA_FUSED]


# Layers as programs have these kernels of XLA inside, and GPUs take them.
_PARAMETERS = [pytest.param(one, marks=[pytest.mark.slow] * (one is Backend.XLA)) for one in CPU_BACKENDS]


@pytest.fixture(scope="module", params=_PARAMETERS, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend of kernels in turn."""
    from tests import backends  # imports TensorFlow, which the process that only distributes tests does not need

    backends.require(request.param)
    return request.param


def pytest_configure() -> None:
    """Below nohup, tests ignore SIGHUP as they must, but the programs that they start receive it."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # unlike SIG_IGN, it is not handed on to other programs


# --- Several processes, which pytest-xdist starts for -n ---


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The processes of -n auto: one more than cores for all tests, some of which wait; none for named files."""
    is_all = config.args_source is not pytest.Config.ArgsSource.ARGS
    num_processes = min(files.num_cores() + 1, _MAX_PROCESSES)
    return num_processes if is_all and num_processes > 2 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Optional[Any]:
    """A file's tests run in one process, because they share fixtures; so do tests/storage's, which share a server."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FilesScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/storage" if nodeid.startswith("tests/storage/") else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return FilesScheduling(config, log) if config.option.dist == "load" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the long files first, in processes of pytest-xdist."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


@pytest.hookimpl(hookwrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, None]:
    """Output and messages with bytes that are no UTF-8 reach the process that prints them."""
    outcome = yield
    outcome.force_result(_escaped(outcome.get_result()))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(name): _escaped(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_escaped(one) for one in value)
    return value


# --- What was left out ---


def left_out(expression: str) -> list[str]:
    """A line for each kind of test that scripts/run_tests.sh has left out by pytest's -m."""
    lines = [
        f"Not run: tests marked {extra}, which need what 'bash init_tf.sh --{extra}' installs."
        for extra in ("horovod", "interop")
        if f"not {extra}" in expression
    ]
    if "not slow" in expression:
        lines.append("Not run: tests marked slow, which --slow runs, and .ci/run.")
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which tests were left out."""
    for line in left_out(config.option.markexpr):
        terminalreporter.write_line(line)
