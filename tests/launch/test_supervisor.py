import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bert_pretrain.distributed.rank_watch import EXIT_CODE_FOLDER, LOST_HOST
from bert_pretrain.launch import launcher
from bert_pretrain.system.processes import STOP_SIGNALS
from tests.e2e import ranks

ROOT = Path(__file__).resolve().parents[2]

# Stands in for the trainer: appends to `runs`, then ends as its argument says.
TRAINER = """
    import os, signal, sys, time
    with open("runs", "a") as file:
        file.write("x")
    def stop(*_):
        os.write(1, b"saved\\n")  # print fails where the signal interrupts a print
        sys.exit(0)
    wanted = sys.argv[1]
    if wanted == "wait":
        signal.signal(signal.SIGTERM, stop)
        print("waiting", os.getpid(), flush=True)
        while True:
            time.sleep(0.05)
    if wanted == "second_time_lucky":
        sys.exit(0 if len(open("runs").read()) > 1 else 9)
    sys.exit(int(wanted))
"""


@pytest.fixture
def trainer(tmp_path):
    (tmp_path / "stand_in.py").write_text(textwrap.dedent(TRAINER))

    def start(wanted, max_restarts=0, launcher=("env",)):
        """The supervisor in a process of its own, because it installs signal handlers."""
        command = [*launcher, sys.executable, "-m", "stand_in", wanted]
        driver = f"""if True:
            import sys
            from bert_pretrain.system import streams
            streams.secure_streams()
            from bert_pretrain.launch.launcher import run_with_restarts
            from bert_pretrain.launch.supervisor import LaunchCommand
            sys.exit(run_with_restarts(LaunchCommand({command}, {{}}), "stand_in", {max_restarts}))
        """
        return subprocess.Popen(
            [sys.executable, "-c", driver],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize(
    ("wanted", "max_restarts", "code", "num_runs"),
    [
        ("0", 3, 0, 1),
        ("2", 3, 2, 1),  # invalid input
        ("9", 0, 9, 1),
        ("9", 2, 9, 3),
        ("second_time_lucky", 3, 0, 2),
    ],
)
def test_only_crashes_are_restarted(trainer, tmp_path, wanted, max_restarts, code, num_runs):
    assert trainer(wanted, max_restarts).wait() == code
    assert len((tmp_path / "runs").read_text()) == num_runs


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_reaches_the_ranks_below_and_no_restart_follows(trainer, tmp_path, number):
    # sh stands in for mpirun; it does not forward signals.
    process = trainer("wait", 3, launcher=("sh", "-c", '"$@"; exit $?', "sh"))
    assert process.stdout.readline().startswith("waiting")
    process.send_signal(number)
    out, err = process.communicate()
    assert (out, process.returncode) == ("saved\n", 0)
    assert "Stopping after a checkpoint" in err
    assert len((tmp_path / "runs").read_text()) == 1


def test_a_warning_and_the_sigterm_after_it_reach_the_ranks_once(trainer, tmp_path):
    """As Slurm's, with a minute between them."""
    slow = "    signal.signal(15, signal.SIG_DFL)\n    time.sleep(1)\n    sys.exit(0)\n"
    (tmp_path / "stand_in.py").write_text(textwrap.dedent(TRAINER).replace("    sys.exit(0)\n", slow, 1))
    process = trainer("wait", 3, launcher=("sh", "-c", '"$@"; exit $?', "sh"))
    assert process.stdout.readline().startswith("waiting")
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "saved\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0


def test_a_job_goes_on_when_nobody_reads_its_output(trainer, tmp_path):
    """mpirun itself would end it."""
    talking = "import time\nfor number in range(30):\n    print('x' * 10_000, flush=True)\nopen('done', 'x').close()\n"
    (tmp_path / "stand_in.py").write_text(talking)
    process = trainer("0")
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0 and (tmp_path / "done").exists()


def test_the_exit_code_that_horovodrun_hides_is_found(trainer):
    hiding = 'echo "Process name: 1\nExit code: 2\n" >&2; exit 1'
    assert trainer("0", 3, launcher=("sh", "-c", hiding)).wait() == 2


@pytest.mark.parametrize(
    "sign",
    [
        f': > "${EXIT_CODE_FOLDER}/{LOST_HOST}"',  # as a rank leaves it
        'echo "PRTE has lost communication with a remote daemon." >&2',
    ],
    ids=["rank", "mpirun"],
)
def test_a_launcher_that_has_lost_a_host_is_ended(trainer, tmp_path, sign):
    process = trainer("wait", 0, launcher=("sh", "-c", f'{sign}; "$@"; exit 0', "sh"))
    pid = int(process.stdout.readline().split()[1])
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert not ranks.is_running(pid)


@pytest.mark.horovod
def test_a_killed_rank_ends_the_job_under_mpirun(trainer):
    pytest.importorskip("horovod")
    command = launcher.launch_command([], {"NP": "2", "OMP_NUM_THREADS": "1"}, launcher.read_local_machine())
    process = trainer("wait", launcher=command.arguments[:-5])
    pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    os.kill(pids[1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
