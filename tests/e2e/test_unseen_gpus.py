"""GPUs that the machine shows and TensorFlow does not see end each command in one line, before it has made anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.e2e import runs

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-m"]

pytestmark = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow sees a GPU")


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with two GPUs, as a stand-in for nvidia-smi says."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor i in 0 1; do echo "GPU $i: Some Model (UUID: GPU-$i)"; done\n')
    tool.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    return environ


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The scripts, with a stand-in for init_tf.sh that names this Python."""
    folder = tmp_path / "project"
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "init_tf.sh").write_text(f"echo {sys.executable}\n")
    return folder


def is_refused(done: subprocess.CompletedProcess) -> bool:
    """Whether a command ended with one line about the GPUs, and nothing else."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this machine has 2 GPUs (GPU 0: Some Model)") and "--device=cpu" in line
    return done.returncode == 2 and not done.stdout


def start(command: list[str], environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Of a run of one update."""
    data = runs.make_data(tmp_path)
    return runs.flags(**data, **runs.settings(output_dir=str(tmp_path / "out"), num_train_steps=1))


def test_run_is_refused_unless_it_asks_for_the_cpu(machine: dict, tmp_path: Path, flags: list) -> None:
    command = [*PYTHON, "bert_pretrain.run", *flags]
    assert is_refused(start(command, machine, tmp_path))
    assert not (tmp_path / "out").exists()
    assert start([*command, "--device=cpu"], machine, tmp_path).returncode == 0


def test_the_launcher_starts_no_rank_unless_the_cpu_is_asked_for(machine: dict, tmp_path: Path, flags: list) -> None:
    (tmp_path / "cpu.flags").write_text("--device=cpu\n")
    command = [*PYTHON, "bert_pretrain.launch", *flags]
    assert is_refused(start(command, {**machine, "DRY_RUN": "1"}, tmp_path))
    for changes in (["--device=cpu"], [f"--flagfile={tmp_path / 'cpu.flags'}"]):
        done = start([*command, *changes], {**machine, "DRY_RUN": "1"}, tmp_path)
        assert changes[0] in done.stdout and not done.stderr
    hidden = start(command, {**machine, "DRY_RUN": "1", "CUDA_VISIBLE_DEVICES": ""}, tmp_path)
    assert "bert_pretrain.run" in hidden.stdout and not hidden.stderr


@pytest.mark.slow
def test_pretrain_text_makes_nothing_unless_the_cpu_is_asked_for(machine: dict, project: Path) -> None:
    (project / "text").mkdir()
    (project / "text" / "a.txt").write_text("One sentence. Another one.\n")
    arguments = ["text", "out"]
    assert is_refused(start(["bash", "scripts/pretrain_text.sh", *arguments], machine, project))
    assert not [path.name for path in (project / "out").glob("*")]
    command = [*PYTHON, "bert_pretrain.pretrain_text", *arguments, "--device=cpu"]
    done = start(command, {**machine, "DRY_RUN": "1"}, project)
    assert done.returncode == 0 and "bert_pretrain.run" in done.stdout


@pytest.mark.parametrize("script", ["scripts/run_1card_FPS.sh", "scripts/run_multi_card_FPS.sh"])
def test_a_script_makes_no_data(machine: dict, project: Path, script: str) -> None:
    cache = project / "cache"
    assert is_refused(start(["bash", script], {**machine, "BERT_PRETRAIN_CACHE": str(cache)}, project))
    assert not cache.exists() and not (project / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["run_1card_FPS.sh", "run_multi_card_FPS.sh"])
def test_a_script_with_flags_refuses_and_takes_the_cpu(machine: dict, project: Path, flags: list, script: str) -> None:
    command = ["bash", f"scripts/{script}", *flags, "--max_seq_length=64", "--max_predictions_per_seq=8"]
    assert is_refused(start(command, machine, project))
    done = start([*command, "--device=cpu"], {**machine, "DRY_RUN": "1"}, project)
    assert done.returncode == 0 and "--device=cpu" in done.stdout
