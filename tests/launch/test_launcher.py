import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bert_pretrain.launch import hosts, launcher
from bert_pretrain.launch.launcher import LocalMachine, RestartableJob
from bert_pretrain.launch.supervisor import LaunchCommand
from bert_pretrain.system import files
from tests import forked

TWO_CORES = LocalMachine(num_cores=2, num_gpus=0, is_root=False)
EIGHT_GPUS = LocalMachine(num_cores=64, num_gpus=8, is_root=True)


@pytest.mark.parametrize(
    ("environ", "machine", "expected"),
    [
        ({}, TWO_CORES, 2),
        ({}, EIGHT_GPUS, 8),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6"}, EIGHT_GPUS, 3),
        ({"CUDA_VISIBLE_DEVICES": "4,-1,6"}, EIGHT_GPUS, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, EIGHT_GPUS, 2),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6", "IX_NUM_CUDA_VISIBLE_DEVICES": "2"}, EIGHT_GPUS, 2),
        ({"NP": "5", "IX_NUM_CUDA_VISIBLE_DEVICES": "2"}, EIGHT_GPUS, 5),
        ({"NP": "", "IX_NUM_CUDA_VISIBLE_DEVICES": ""}, TWO_CORES, 2),
    ],
)
def test_number_of_ranks(environ, machine, expected):
    assert launcher.choose_num_ranks(environ, machine) == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_an_invalid_number_of_ranks_is_refused(text):
    with pytest.raises(ValueError, match=f"NP={text} "):
        launcher.choose_num_ranks({"NP": text}, TWO_CORES)


def test_mpirun_on_one_machine():
    command = launcher.launch_command(["--a=b"], {}, EIGHT_GPUS)
    trainer = [sys.executable, "-m", "bert_pretrain.run", "--horovod", "--intra_op_threads=8", "--a=b"]
    assert command.arguments[1:] == [
        *["-np", "8", "--allow-run-as-root", "--use-hwthread-cpus", "--bind-to", "none"],
        *trainer,
    ]
    assert command.arguments[0].endswith("mpirun")
    assert command.environ == {"OMP_NUM_THREADS": "8"}


def test_more_ranks_than_cores_share_them_with_one_thread_each():
    command = launcher.launch_command([], {"NP": "8"}, TWO_CORES)
    assert command.arguments[1:5] == ["-np", "8", "--use-hwthread-cpus", "--oversubscribe"]
    assert command.environ == {"OMP_NUM_THREADS": "1"}
    assert "--intra_op_threads=1" in command.arguments


def test_the_users_thread_count_and_flags_override_the_launchers():
    command = launcher.launch_command(["--intra_op_threads=3"], {"OMP_NUM_THREADS": "4"}, TWO_CORES)
    assert command.environ == {}
    assert command.arguments[-2:] == ["--intra_op_threads=1", "--intra_op_threads=3"]  # the last one counts


def test_several_machines_from_a_hostfile_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# two\nnode1 slots=8\nnode2   slots=8 max_slots=8 # spare\n\n")
    environ = {"HOSTFILE": "~/hosts", "NCCL_DEBUG": "INFO", "PATH": "/bin", "EDITOR": "ed", "PYTHONPATH": "/src"}
    command = launcher.launch_command([], environ, EIGHT_GPUS)
    assert command.arguments[1:-5] == [
        *["-np", "16", "--allow-run-as-root", "--bind-to", "none", "--host", "node1:8,node2:8"],
        *["-x", "NCCL_DEBUG", "-x", "OMP_NUM_THREADS", "-x", "PATH", "-x", "PYTHONPATH"],
    ]
    assert command.environ["OMP_NUM_THREADS"] == "8"
    assert command.environ["PRTE_MCA_oob_tcp_keepalive_time"] == "20"


def test_hosts_without_slots_get_one_rank_per_gpu(tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("node1\nnode2 slots=2\n")
    assert hosts.read_hostfile(str(hostfile), default_slots=8) == {"node1": 8, "node2": 2}


@pytest.mark.parametrize("text", ["", "# nothing\n", "node1 slots=many\n"])
def test_a_hostfile_without_valid_hosts_is_refused(tmp_path, text):
    hostfile = tmp_path / "hosts"
    hostfile.write_text(text)
    with pytest.raises(ValueError, match="HOSTFILE="):
        hosts.read_hostfile(str(hostfile), default_slots=8)


def test_slots_of_repeated_hosts_add_up_and_bytes_that_are_no_text_are_refused(tmp_path):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("node1 slots=8\nnode2\nnode1 slots=2\n")
    assert hosts.read_hostfile(str(hostfile), default_slots=1) == {"node1": 10, "node2": 1}
    hostfile.write_bytes(b"node1 \xff\n")
    with pytest.raises(ValueError, match=r"HOSTFILE=\S+ is no text: invalid start byte at byte 6"):
        hosts.read_hostfile(str(hostfile), default_slots=1)


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("node1:4\nnode2:2\n", {"node1": 4, "node2": 2}),  # horovodrun's -H
        ("node1:4, node2:2,node3\n", {"node1": 4, "node2": 2, "node3": 8}),
        ("node1 SLOTS=4\nnode2 Slots = 2\n", {"node1": 4, "node2": 2}),
        ("node1 cpu=4\nnode2 count=2\n", {"node1": 4, "node2": 2}),  # words of mpirun
        ("node1 max_slots=4\nnode2 slots=2 max-slots=6 // here\n", {"node1": 4, "node2": 2}),
        ("node[01-03,7]:4\n", {"node01": 4, "node02": 4, "node03": 4, "node7": 4}),  # Slurm's lists
        ("r[1-2]n[9-10]-ib slots=2\n", {"r1n9-ib": 2, "r1n10-ib": 2, "r2n9-ib": 2, "r2n10-ib": 2}),
        ("\ufeffnode1 slots=4\r\nnode2\r\n", {"node1": 4, "node2": 8}),
        ("fd00::11 slots=4\n10.0.0.1 slots=2\n", {"fd00::11": 4, "10.0.0.1": 2}),
        ("me@node1 slots=4\nnode2 slots=2 username=you\n", {"me@node1": 4, "you@node2": 2}),
    ],
)
def test_hosts_as_mpirun_horovodrun_and_slurm_write_them(tmp_path, text, slots):
    hostfile = tmp_path / "hosts"
    hostfile.write_text(text)
    assert hosts.read_hostfile(str(hostfile), default_slots=8) == slots
    arguments = launcher.launch_command([], {"HOSTFILE": str(hostfile)}, EIGHT_GPUS).arguments
    if all(hosts.is_in_lists(name) for name in slots):
        expected = ",".join(f"{name}:{number}" for name, number in slots.items())
        assert arguments[arguments.index("--host") + 1] == expected
    else:
        assert arguments[arguments.index("--hostfile") + 1] == str(hostfile)
    assert arguments[arguments.index("-np") + 1] == str(sum(slots.values()))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("node1 4", "slots=4"), ("node1 slots 4", "'slots'"), ("node1 slots=4 gpus=2", "'gpus=2'"),
        ("node1 slots=4 slots=4", ""), ("node1:4 slots=4", "twice"), ("node1:four", "four"),
        ("node1 slots=0", "slots=0"), ("node1 slots=", ""),
        ("node[4-1]", "'4-1'"), ("node[01-", "'node[01-'"), ("node[a-b]:2", ""), ("^node1", ""), ("+n0", ""),
        ("rank 0=node1 slot=0", ""), ("node1 node2", "'node2'"), ("node1,,node2", ""), ("1:2:3", "'1:2:3'"),
        ("node1 port=22", "'port=22'"), ("node1,node1", "twice"), ("node1:", ""), ("fd00::11,node2:2", ""),
        ("[fd00::11]:4", "fd00::11"), ("node[1-99999999]", ""), ("me@node1 SLOTS=2", ""),
    ],
)  # fmt: skip
def test_a_line_that_is_not_understood_is_refused_with_its_number_and_a_remedy(tmp_path, line, part):
    hostfile = tmp_path / "hosts"
    hostfile.write_text(f"# hosts\nnode0 slots=4\n{line}\n")
    with pytest.raises(ValueError, match=r"HOSTFILE=\S+, line 3: .*(write|give)") as error:
        hosts.read_hostfile(str(hostfile), default_slots=8)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_missing_hostfile_is_refused():
    with pytest.raises(ValueError, match="HOSTFILE=/nowhere/hosts cannot be read"):
        hosts.read_hostfile("/nowhere/hosts", default_slots=8)


def test_gloo_is_started_by_horovodrun():
    command = launcher.launch_command(["--a=b"], {"HOROVOD_LAUNCHER": "gloo", "NP": "3"}, EIGHT_GPUS)
    assert command.arguments[0].endswith("horovodrun")
    assert command.arguments[1:6] == ["--gloo", "-np", "3", "--hosts", "localhost:3"]


def test_more_arguments_for_mpirun_come_before_the_program():
    command = launcher.launch_command([], {"MPIRUN_ARGS": "--mca btl 'tcp,self'"}, TWO_CORES)
    assert command.arguments[-8:-5] == ["--mca", "btl", "tcp,self"]


def test_an_unknown_launcher_is_refused():
    with pytest.raises(ValueError, match="HOROVOD_LAUNCHER=slurm"):
        launcher.launch_command([], {"HOROVOD_LAUNCHER": "slurm"}, TWO_CORES)


def test_max_restarts_is_taken_out_of_the_flags():
    assert launcher.take_number_flag("max_restarts", 0, ["--a=b", "--max_restarts=3", "c"]) == (3, ["--a=b", "c"])
    assert launcher.take_number_flag("max_restarts", 0, ["--max_restarts", "3", "--a"]) == (3, ["--a"])
    assert launcher.take_number_flag("max_restarts", 0, ["--a", "max_restarts"]) == (0, ["--a", "max_restarts"])
    with pytest.raises(ValueError, match="--max_restarts=x"):
        launcher.take_number_flag("max_restarts", 0, ["--max_restarts=x"])


def test_a_missing_launcher_is_named_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(launcher, "launch_command", lambda *_: LaunchCommand(["/nowhere/mpirun"], {}))
    assert launcher.main([]) == 2
    assert "/nowhere/mpirun was not found; bash init_tf.sh --horovod" in capsys.readouterr().err


def test_a_restart_leaves_lost_hosts_out_and_an_update_keeps_its_examples(environ, tmp_path, capsys):
    (tmp_path / "hosts").write_text("node1 slots=2\nnode2 slots=2\n")
    environ = {**environ, "HOSTFILE": str(tmp_path / "hosts")}
    flags = ["--train_batch_size=3", "--num_accumulation_steps=1", "--lr_scaling=none"]
    job = RestartableJob(flags, environ, TWO_CORES, str(tmp_path))
    running = SimpleNamespace(is_stopped=False)
    assert job.restart_command(0, running) == launcher.launch_command(flags, environ, TWO_CORES)
    (tmp_path / "agent.node2").unlink()
    arguments = list(job.restart_command(0, running).arguments)
    assert arguments[1:3] == ["-np", "2"] and arguments[-1] == "--train_batch_size=3"
    assert "--num_accumulation_steps=2" in arguments
    assert arguments[arguments.index("--host") + 1] == "node1:2"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("It goes on with node1; without node2; ")


def test_the_command_starts_a_crashed_job_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = """
from bert_pretrain.launch import launcher, supervisor
crashing = ["sh", "-c", "echo once >>runs; test $(wc -l <runs) -gt 1"]
launcher.launch_command = lambda *_: supervisor.LaunchCommand(crashing, {})
"""
    ended = forked.run_module("bert_pretrain.launch", ["--max_restarts=2"], before)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs").read_text() == "once\n" * 2
    assert "exit code 1; restart 1 of 2" in ended.stderr


def test_without_a_temporary_folder_the_cause_is_told():
    command = [
        "bash",
        "-c",
        'ulimit -f 0; exec "$@"',
        "bash",
        sys.executable,
        "-m",
        "bert_pretrain.launch",
        "--do_train",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no temporary folder: ") and "TMPDIR" in done.stderr


def test_mpirun_gets_a_home_and_the_cache_stays_where_it_is(monkeypatch):
    for name in ("BERT_PRETRAIN_CACHE", "HOME"):
        monkeypatch.setenv(name, "")  # is put back afterwards
        monkeypatch.delenv(name)
    before = files.cache_directory("kernels")
    launcher._find_home()
    assert os.environ["HOME"] and files.cache_directory("kernels") == before
