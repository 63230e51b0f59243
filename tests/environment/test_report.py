"""What init_tf.sh says of a machine at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.environment import facts, report
from bert_pretrain.system import gpus

SEEN = {
    "version": "2.21.0", "is_for_gpus": True, "cuda": "12.5.1", "num_gpus": 2, "why_none": None, "why_not_xla": None,
}  # fmt: skip
ALL = {"horovod": "0.28.1", "mpi4py": "4.1.2"}


def lines(monkeypatch, seen=(), installed=None, horovod="nccl mpi gloo", wheels=None) -> list[str]:
    """Of a machine with two GPUs and these answers of the probes."""
    answers = {report._HOROVOD: horovod, report._MPI: "Open MPI v5.0.11"}

    def ask(arguments):
        answer = answers.get(arguments[1], json.dumps({**SEEN, **dict(seen)}))
        return (answer, "") if answer else (None, "ImportError: libnccl.so.2")

    monkeypatch.setattr(report, "_ask", ask)
    monkeypatch.setattr(report, "_mpirun", lambda: "/env/bin/mpirun")
    monkeypatch.setattr(facts, "installed", lambda: ALL if installed is None else installed)
    monkeypatch.setattr(facts, "cuda_wheels", lambda: wheels)
    monkeypatch.setattr(facts, "has_system_nccl", lambda: False)
    monkeypatch.setattr(gpus, "machine_gpus", lambda: ["GPU 0: NVIDIA H200", "GPU 1: NVIDIA H200"])
    monkeypatch.setattr(gpus, "missing_compiler_parts", lambda: [])
    found = report.report_lines()
    assert all("\n" not in line for line in found)
    return found


def test_a_machine_that_lacks_nothing(monkeypatch) -> None:
    assert lines(monkeypatch) == [
        "GPUs: 2 x NVIDIA H200; TensorFlow 2.21.0 sees all",
        "XLA: compiles for the GPUs",
        "gradients of several GPUs: Horovod 0.28.1 with NCCL",
        "MPI: Open MPI v5.0.11, /env/bin/mpirun",
    ]


@pytest.mark.parametrize(
    ("changes", "number", "parts"),
    [
        ({"seen": {"num_gpus": 0, "why_none": "the driver ..."}}, 0, ["sees none: the driver"]),
        ({"seen": {"num_gpus": 1}}, 0, ["sees 1"]),
        ({"seen": {"why_not_xla": "libdevice not found"}}, 1, ["plain kernels", "libdevice not found"]),
        ({"installed": {}}, 2, ["not installed", "init_tf.sh --horovod"]),
        ({"horovod": "mpi gloo"}, 2, ["memory of the hosts", "pip install nvidia-nccl-cu12 nvidia-cuda-runtime-cu12"]),
        ({"horovod": "mpi gloo", "wheels": object()}, 2, ["memory of the hosts", "remove .venv"]),
        ({"horovod": "gloo", "seen": {"cuda": None}}, 2, ["memory of the hosts", "vendor"]),
        ({"horovod": ""}, 2, ["cannot be started: ImportError: libnccl.so.2"]),
        ({"installed": {"horovod": "0.28.1"}}, 3, ["mpi4py is not installed"]),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(monkeypatch, changes: dict, number: int, parts: list) -> None:
    line = lines(monkeypatch, **changes)[number]
    assert all(part in line for part in parts), line


def test_without_the_parts_of_a_compiler_their_package_is_named(monkeypatch) -> None:
    found = lines(monkeypatch, seen={"num_gpus": 0, "why_none": "..."})
    assert "cuda-nvcc" not in found[1]
    monkeypatch.setattr(gpus, "missing_compiler_parts", lambda: ["ptxas"])
    assert "ptxas: pip install nvidia-cuda-nvcc-cu12" in report.report_lines()[1]


def test_a_machine_without_gpus_has_one_line_for_which_nothing_is_started(monkeypatch) -> None:
    monkeypatch.setattr(gpus, "machine_gpus", lambda: [])
    monkeypatch.setattr(report, "_ask", lambda arguments: pytest.fail("started"))
    (line,) = report.report_lines()
    assert line.startswith("no GPU: TensorFlow ")


def test_the_probes_of_this_environment_answer(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Some Model (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "bert_pretrain.environment", "report"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout
    assert done.stderr.startswith("GPUs: 1 x Some Model; TensorFlow ")
    assert report._ask(["-c", report._MPI])[0] or "mpi4py" not in facts.installed()
    assert report._ask(["-c", report._HOROVOD])[0] or "horovod" not in facts.installed()
