"""The bar on a terminal, which is a pseudo-terminal here, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import threading
from collections.abc import Iterator
from typing import Callable

import pytest

from tests import forked

SCRIPT = """
import sys, time
from bert_pretrain.system.console import log
from bert_pretrain.train.run_logger import ProgressBar
bar = ProgressBar(40, hidden=tuple(sys.argv[1:]))
for update in range(11, 21):
    time.sleep(0.02)
    bar.move(update, {"loss": 7.25, "masked_lm_accuracy": 0.125, "examples_per_second": 61.5})
    log.info(f"line {update}")
time.sleep(0.2)
bar.move(21, {"loss": None, "masked_lm_accuracy": None, "examples_per_second": None})
bar.close()
log.info("end")
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that returns what the script shows on a terminal."""

    def show(*hidden: str, no_color: str = "") -> str:
        monkeypatch.setenv("NO_COLOR", no_color)
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))  # lines and columns
        shown: list[bytes] = []
        reader = threading.Thread(target=lambda: shown.extend(_read_to_end(ours)))
        reader.start()
        ended = forked.run(SCRIPT, hidden, terminal=theirs)
        os.close(theirs)
        reader.join(60)
        os.close(ours)
        assert ended.returncode == 0, shown
        return b"".join(shown).decode()

    return show


def _read_to_end(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            yield os.read(descriptor, 65536)


def test_a_terminal_shows_progress_time_left_and_values(run: Callable[..., str]) -> None:
    shown = run()
    assert "| 20/40 [00:00<00:0" in shown, "the updates before the start do not count in the time left"
    assert "loss 7.2500, mlm_acc 0.1250, examples/s 61.5]" in shown
    assert all(f"line {update}\r\n" in shown for update in range(11, 21)), "lines are above the bar"
    assert shown.endswith("end\r\n") and "| 21/40" in shown


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(run: Callable[..., str], no_color: str, is_coloured: bool) -> None:
    assert ("\x1b[3" in run(no_color=no_color)) == is_coloured


def test_hidden_values_are_not_shown(run: Callable[..., str]) -> None:
    shown = run("loss")
    assert "loss" not in shown and "mlm_acc 0.1250" in shown


def test_elsewhere_there_is_no_bar() -> None:
    done = forked.run(SCRIPT)
    assert (
        done.returncode == 0
        and "%|" not in done.stderr
        and done.stdout.splitlines()
        == [
            *(f"line {update}" for update in range(11, 21)),
            "end",
        ]
    )
