"""Signals to a process of its own: the first asks, the second ends at once, also while C++ code runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_pretrain.system.processes import STOP_SIGNALS

WARNINGS = STOP_SIGNALS[2:]  # which only ask
ROOT = Path(__file__).resolve().parents[2]
# In C, without the GIL, for minutes; Python's handlers run only afterwards.
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 600_000_000)"
BEGIN = """
import hashlib, time
from bert_pretrain.distributed import stop
stop._SECONDS_TO_LEAVE = 0.5
request = stop.StopRequest()
with request.listening():
    print("listening", flush=True)
"""


def start(*lines: str) -> subprocess.Popen:
    """A process that executes lines while it listens."""
    program = BEGIN + "".join(f"    {line}\n" for line in lines)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "listening\n"
    time.sleep(0.1)
    return process


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and stdout."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert err == ""
    return process.returncode, out


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_a_process_that_is_in_c_code(second: signal.Signals) -> None:
    process = start("request.has_updates = True", IN_C)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)  # the first signal only asks
    process.send_signal(second)
    assert end(process) == (128 + second, "")


@pytest.mark.parametrize("number", WARNINGS)
def test_a_lost_terminal_and_a_scheduler_s_warning_ask_however_often_they_come(number: signal.Signals) -> None:
    """As a terminal's SIGHUP, then that of its shell, or Slurm's SIGUSR1, then its SIGTERM."""
    process = start(
        "request.has_updates = True",
        "while not request.requested: time.sleep(0.01)",
        "print('asked', flush=True)",
        "time.sleep(1)",
        "print('saved')",
    )
    process.send_signal(number)
    assert process.stdout.readline() == "asked\n"
    for again in (number, signal.SIGTERM, number):
        process.send_signal(again)
        time.sleep(0.1)
    assert end(process) == (0, "saved\n")


def test_after_a_warning_the_second_sigterm_ends_the_process() -> None:
    process = start("request.has_updates = True", IN_C)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.1)
    assert end(process) == (128 + signal.SIGTERM, "")


def test_a_signal_that_is_ignored_from_the_start_stays_ignored() -> None:
    """As nohup ignores SIGHUP, and a shell's trap '' USR1."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in WARNINGS}
    try:
        process = start("time.sleep(1)", "print(request.requested)")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in WARNINGS:
        process.send_signal(number)
    assert end(process) == (0, "False\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_with_nothing_to_save_ends_soon_wherever_it_is(number: signal.Signals) -> None:
    process = start(IN_C)
    process.send_signal(number)
    code, out = end(process)
    assert code == 0 and out.startswith("stopped by a signal, with nothing to save")


def test_work_that_may_be_abandoned_is_left_at_once() -> None:
    process = start(
        "stop._SECONDS_TO_LEAVE = 60",
        "try:",
        "    with request.abandoning():",
        "        while True: time.sleep(0.01)",
        "except stop.Interrupted:",
        "    print('left', request.requested)",
    )
    process.send_signal(signal.SIGINT)
    assert end(process) == (0, "left True\n")


def test_an_error_that_an_interruption_became_is_the_interruption() -> None:
    """As C++ code reports what the Python functions raise that it calls."""
    process = start(
        "try:",
        "    with request.abandoning():",
        "        try:",
        "            while True: time.sleep(0.01)",
        "        except stop.Interrupted as error: raise RuntimeError(f'{error} At: build.py')",
        "except stop.Interrupted:",
        "    print('left', request.requested)",
    )
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "left True\n")


def test_work_that_must_be_saved_is_not_left() -> None:
    process = start(
        "request.has_updates = True",
        "with request.abandoning():",
        "    while not request.requested: time.sleep(0.01)",
        "    time.sleep(1)",
        "    print('saved')",
    )
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "saved\n")


def test_after_listening_signals_have_their_usual_effect() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}stop.signal.raise_signal(15)\nprint('survived')"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "listening\n")
