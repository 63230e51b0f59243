import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bert_pretrain import launch
from bert_pretrain.launch import Job, Machine

ROOT = Path(__file__).resolve().parent.parent
TWO_CORES = Machine(num_cores=2, num_cards=0, is_root=False)
EIGHT_CARDS = Machine(num_cores=64, num_cards=8, is_root=True)


@pytest.mark.parametrize(
    ("environ", "machine", "expected"),
    [
        ({}, TWO_CORES, 2),
        ({}, EIGHT_CARDS, 8),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6"}, EIGHT_CARDS, 3),
        ({"CUDA_VISIBLE_DEVICES": "4,-1,6"}, EIGHT_CARDS, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, EIGHT_CARDS, 2),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6", "IX_NUM_CUDA_VISIBLE_DEVICES": "2"}, EIGHT_CARDS, 2),
        ({"NP": "5", "IX_NUM_CUDA_VISIBLE_DEVICES": "2"}, EIGHT_CARDS, 5),
        ({"NP": "", "IX_NUM_CUDA_VISIBLE_DEVICES": ""}, TWO_CORES, 2),
    ],
)
def test_number_of_ranks(environ, machine, expected):
    assert launch.num_ranks(environ, machine) == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_ranks_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=f"NP={text} "):
        launch.num_ranks({"NP": text}, TWO_CORES)


def test_mpirun_on_one_machine():
    started = launch.job(["--a=b"], {}, EIGHT_CARDS)
    trainer = [sys.executable, "-m", "bert_pretrain.run", "--horovod", "--intra_op_threads=8", "--a=b"]
    assert started.command[1:] == [
        *["-np", "8", "--allow-run-as-root", "--use-hwthread-cpus", "--bind-to", "none"],
        *trainer,
    ]
    assert started.command[0].endswith("mpirun")
    assert started.environ == {"OMP_NUM_THREADS": "8"}


def test_more_ranks_than_cores_share_them_with_one_thread_each():
    started = launch.job([], {"NP": "8"}, TWO_CORES)
    assert started.command[1:5] == ["-np", "8", "--use-hwthread-cpus", "--oversubscribe"]
    assert started.environ == {"OMP_NUM_THREADS": "1"}
    assert "--intra_op_threads=1" in started.command


def test_the_persons_thread_count_and_flags_stand():
    started = launch.job(["--intra_op_threads=3"], {"OMP_NUM_THREADS": "4"}, TWO_CORES)
    assert started.environ == {}
    assert started.command[-2:] == ["--intra_op_threads=1", "--intra_op_threads=3"]  # the last one counts


def test_several_machines_from_a_hostfile(tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# two\nnode1 slots=8\nnode2   slots=8 max_slots=8 # spare\n\n")
    environ = {"HOSTFILE": str(hostfile), "NCCL_DEBUG": "INFO", "PATH": "/bin", "EDITOR": "ed"}
    started = launch.job([], environ, EIGHT_CARDS)
    assert started.command[1:-5] == [
        *["-np", "16", "--allow-run-as-root", "--bind-to", "none", "--hostfile", str(hostfile)],
        *["-x", "NCCL_DEBUG", "-x", "OMP_NUM_THREADS", "-x", "PATH"],
    ]
    assert started.environ == {"OMP_NUM_THREADS": "8"}


def test_hosts_without_slots_get_one_rank_a_card(tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("node1\nnode2 slots=2\n")
    assert launch.read_hostfile(str(hostfile), default_slots=8) == {"node1": 8, "node2": 2}


@pytest.mark.parametrize("text", ["", "# nothing\n", "node1 slots=many\n"])
def test_a_hostfile_that_says_nothing_is_refused(tmp_path, text):
    hostfile = tmp_path / "hosts"
    hostfile.write_text(text)
    with pytest.raises(ValueError, match="HOSTFILE="):
        launch.read_hostfile(str(hostfile), default_slots=8)


def test_a_missing_hostfile_is_refused():
    with pytest.raises(ValueError, match="HOSTFILE=/nowhere/hosts cannot be read"):
        launch.read_hostfile("/nowhere/hosts", default_slots=8)


def test_gloo_goes_by_horovodrun():
    started = launch.job(["--a=b"], {"HOROVOD_LAUNCHER": "gloo", "NP": "3"}, EIGHT_CARDS)
    assert started.command[0].endswith("horovodrun")
    assert started.command[1:6] == ["--gloo", "-np", "3", "--hosts", "localhost:3"]


def test_more_arguments_for_mpirun_come_before_the_program():
    started = launch.job([], {"MPIRUN_ARGS": "--mca btl 'tcp,self'"}, TWO_CORES)
    assert started.command[-8:-5] == ["--mca", "btl", "tcp,self"]


def test_an_unknown_launcher_is_refused():
    with pytest.raises(ValueError, match="HOROVOD_LAUNCHER=slurm"):
        launch.job([], {"HOROVOD_LAUNCHER": "slurm"}, TWO_CORES)


def test_max_restarts_is_taken_out_of_the_flags():
    assert launch.take_max_restarts(["--a=b", "--max_restarts=3", "c"]) == (3, ["--a=b", "c"])
    assert launch.take_max_restarts(["--max_restarts", "3", "--a"]) == (3, ["--a"])
    assert launch.take_max_restarts(["--a", "max_restarts"]) == (0, ["--a", "max_restarts"])
    with pytest.raises(ValueError, match="--max_restarts=x"):
        launch.take_max_restarts(["--max_restarts=x"])


# A stand-in for the trainer: notes that it ran, then ends as asked.
TRAINER = """
    import os, signal, sys, time
    with open("runs", "a") as file:
        file.write("x")
    def stop(*_):
        print("saved", flush=True)
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
        """The launcher in a process of its own, because it takes the signal handlers."""
        command = [*launcher, sys.executable, "-m", "stand_in", wanted]
        driver = f"""if True:
            import sys
            from bert_pretrain import launch
            sys.exit(launch.run(launch.Job({command}, {{}}), {max_restarts}, "stand_in"))
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
        ("2", 3, 2, 1),  # bad input
        ("9", 0, 9, 1),
        ("9", 2, 9, 3),
        ("second_time_lucky", 3, 0, 2),
    ],
)
def test_only_crashes_are_followed_by_another_start(trainer, tmp_path, wanted, max_restarts, code, num_runs):
    assert trainer(wanted, max_restarts).wait() == code
    assert len((tmp_path / "runs").read_text()) == num_runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_ranks_below_and_no_restart_follows(trainer, tmp_path, number):
    # sh, which does not hand signals on, stands where mpirun stands.
    process = trainer("wait", 3, launcher=("sh", "-c", '"$@"; exit $?', "sh"))
    assert process.stdout.readline().startswith("waiting")
    process.send_signal(number)
    out, err = process.communicate()
    assert (out, process.returncode) == ("saved\n", 0)
    assert "Stopping after a checkpoint" in err
    assert len((tmp_path / "runs").read_text()) == 1


def test_the_exit_code_that_horovodrun_hides_is_found(trainer):
    hiding = 'echo "Process name: 1\nExit code: 2\n" >&2; exit 1'
    assert trainer("0", 3, launcher=("sh", "-c", hiding)).wait() == 2


def test_a_program_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(launch, "job", lambda *_: Job(["/nowhere/mpirun"], {}))
    assert launch.main([]) == 2
    assert "/nowhere/mpirun was not found; bash init_tf.sh --horovod" in capsys.readouterr().err


@pytest.mark.horovod
def test_a_killed_rank_ends_the_job_under_mpirun(trainer):
    pytest.importorskip("horovod")
    mpirun = launch.job([], {"NP": "2", "OMP_NUM_THREADS": "1"}, launch.this_machine()).command[:-5]
    process = trainer("wait", launcher=mpirun)
    pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    os.kill(pids[1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
