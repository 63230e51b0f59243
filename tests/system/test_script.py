"""Scripts of several steps below bert_pretrain.system.script: real processes, signals and locks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import psutil
import pytest

from bert_pretrain.system import script as runner
from bert_pretrain.system.locks import SCRIPT
from bert_pretrain.system.processes import STOP_SIGNALS
from tests.e2e.ranks import is_running

ROOT = Path(__file__).resolve().parents[2]
# The tests may run below a script themselves.
ENVIRON = {name: value for name, value in os.environ.items() if name not in (runner.RUNNER, runner.STAGE)}
ENVIRON["PYTHONPATH"] = f"{ROOT}:."  # inner.py is in the current folder
# Two steps; the first one has a child, as make_data's workers are, and writes `ended` when it has cleaned up.
STEP = """
import os, signal, subprocess, sys, time
def end(*_):
    open("ended", "a").write("x")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""
OUTER = """
. scripts/_launch.sh
run_steps out "$@"
use_environment
doing "making the text"
launch bash inner.sh "$@"
echo second step
"""
INNER = """
. scripts/_launch.sh
run_steps out/data "$@"
use_environment
launch_module inner out/data
"""
INNER_MODULE = """
import sys
from bert_pretrain.system import script
with script.locked_output("out/data"):
    script.doing("making the shards")
    script.launch(sys.executable, "step.py")
"""
PATIENT = """
. scripts/_launch.sh
run_steps "" "$@"
use_environment
launch_last "$python" -c '
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
os.write(1, b"0 0\\n")  # print() cannot be interrupted by a handler that prints
time.sleep(60)
'
"""


class Started:
    """A script of the folder in a process group of its own, once its first step runs."""

    def __init__(self, folder: Path, name: str = "outer.sh", pids: str = "stdout") -> None:
        """pids: the stream to which the step writes its process and its child's."""
        self.process = subprocess.Popen(
            ["bash", name, "an argument"],
            cwd=folder,
            env=ENVIRON,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.step, self.child = map(int, getattr(self.process, pids).readline().split())

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def wait_until(is_reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_reached():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    contents = {"init_tf.sh": f"echo {sys.executable}", "step.py": STEP}
    contents.update({"outer.sh": OUTER, "inner.sh": INNER, "inner.py": INNER_MODULE, "patient.sh": PATIENT})
    for name, content in contents.items():
        (tmp_path / name).write_text(("set -euo pipefail\n" if name.endswith("r.sh") else "") + content)
    return tmp_path


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_the_step_with_all_its_processes(folder: Path, number: signal.Signals) -> None:
    script = Started(folder)
    script.process.send_signal(number)
    assert script.end() == (
        128 + number,
        "",
        f"out: stopped by {number.name} while making the shards; the same command goes on\n",
    )
    assert (folder / "ended").read_text() == "x"
    assert not is_running(script.step) and not is_running(script.child)
    assert not (folder / "out").exists()  # it held the locks alone


def test_a_signal_ends_the_installation(folder: Path) -> None:
    (folder / "init_tf.sh").write_text(f"{sys.executable} step.py >/dev/stderr\n")
    script = Started(folder, pids="stderr")
    script.process.send_signal(signal.SIGINT)
    message = "out: stopped by SIGINT while setting the environment up; the same command goes on\n"
    assert script.end() == (128 + signal.SIGINT, "", message)
    assert (folder / "ended").read_text() == "x" and not is_running(script.child)


def test_ctrl_z_stops_the_step_until_the_script_goes_on(folder: Path) -> None:
    script = Started(folder)
    step = psutil.Process(script.step)
    script.process.send_signal(signal.SIGTSTP)
    wait_until(lambda: step.status() == psutil.STATUS_STOPPED)
    script.process.send_signal(signal.SIGCONT)
    wait_until(lambda: step.status() != psutil.STATUS_STOPPED)
    script.process.send_signal(signal.SIGTERM)
    assert script.end()[0] == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signal at the parent's death")
def test_the_step_ends_when_the_scripts_process_group_is_killed(folder: Path) -> None:
    script = Started(folder)
    os.killpg(script.process.pid, signal.SIGKILL)
    assert script.end()[0] == -signal.SIGKILL
    wait_until(lambda: not is_running(script.step) and not is_running(script.child))


def test_a_second_script_is_refused_until_the_first_has_ended(folder: Path) -> None:
    first = Started(folder)
    for name, directory in (("outer.sh", "out"), ("inner.sh", "out/data")):
        second = subprocess.run(
            ["bash", name], cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False, timeout=20
        )
        assert (second.returncode, second.stdout) == (2, "")
        assert second.stderr.startswith(f"error: {directory} is in use: process ") and second.stderr.count("\n") == 1
    first.process.send_signal(signal.SIGTERM)
    first.end()
    (folder / "out").mkdir()
    (folder / "out" / SCRIPT.file_name).write_text("what a killed script left")
    (folder / "step.py").write_text("print('0 0')")
    third = Started(folder)
    assert third.end() == (0, "second step\n", "")
    assert list((folder / "out").iterdir()) == []


def test_a_last_program_that_handles_the_signal_says_the_exit_code(folder: Path) -> None:
    script = Started(folder, "patient.sh")
    script.process.send_signal(signal.SIGTERM)
    assert script.end() == (0, "saved\n", "")


def test_a_warning_and_the_sigterm_after_it_ask_the_last_program_once(folder: Path) -> None:
    impatient = PATIENT.replace("(print(", '(signal.signal(15, 0), open("asked", "x"), time.sleep(1), print(')
    (folder / "patient.sh").write_text(impatient)
    script = Started(folder, "patient.sh")
    script.process.send_signal(signal.SIGUSR1)
    wait_until((folder / "asked").exists)
    script.process.send_signal(signal.SIGTERM)
    assert script.end() == (0, "saved\n", "")


def test_nohup_s_ignored_sighup_stays_ignored(folder: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        script = Started(folder, "patient.sh")
    finally:
        signal.signal(signal.SIGHUP, before)
    script.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        script.process.wait(0.5)
    script.process.send_signal(signal.SIGTERM)
    assert script.end() == (0, "saved\n", "")


def test_a_failing_step_ends_the_script_with_its_exit_code(folder: Path) -> None:
    (folder / "step.py").write_text("import sys; print('0 0', flush=True); sys.exit(7)")
    assert Started(folder).end() == (7, "", "")
