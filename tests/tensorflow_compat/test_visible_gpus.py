"""Why TensorFlow sees no GPU, found where the cause lies: the build, the driver, the libraries."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.system import gpus
from bert_pretrain.tensorflow_compat import visible_gpus

H200, BI_V100 = "GPU 0: NVIDIA H200", "GPU 0: Iluvatar BI-V100"


@pytest.mark.parametrize(
    ("shown", "for_gpus", "driver", "missing", "part"),
    [
        (H200, False, None, [], "build for CPUs"),
        (H200, True, "libcuda.so.1 cannot be loaded", [], "libcuda.so.1"),
        (H200, True, None, ["cudnn"], "no library cudnn is installed; pip install 'tensorflow[and-cuda]=="),
        (H200, True, None, [], "TF_CPP_MIN_LOG_LEVEL=0"),
        (BI_V100, True, "libcuda.so.1 cannot be loaded", ["cudnn"], "TF_CPP_MIN_LOG_LEVEL=0"),
    ],
)
def test_the_first_cause_is_told(monkeypatch, shown: str, for_gpus: bool, driver, missing: list, part: str) -> None:
    monkeypatch.setattr(gpus, "machine_gpus", lambda: [shown])
    monkeypatch.setattr(tf.test, "is_built_with_gpu_support", lambda: for_gpus)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: for_gpus)
    monkeypatch.setattr(gpus, "driver_problem", lambda: driver)
    monkeypatch.setattr(gpus, "missing_libraries", lambda: missing)
    assert part in visible_gpus.why_none()


def test_libraries_and_parts_of_the_compiler_may_come_from_wheels(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "wheel_folder", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else "")
    monkeypatch.setattr(gpus.ctypes.util, "find_library", lambda name: "libcufft.so.11" if name == "cufft" else None)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    monkeypatch.setattr(glob, "glob", lambda pattern: [])
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert gpus.missing_libraries() == ["cublas", "cudnn", "cusolver", "cusparse"]
    assert gpus.missing_compiler_parts() == ["ptxas", "libdevice"]
    (tmp_path / "cudnn").mkdir()
    (tmp_path / "cuda_nvcc" / "bin").mkdir(parents=True)
    (tmp_path / "cuda_nvcc" / "bin" / "ptxas").touch()
    assert gpus.missing_libraries() == ["cublas", "cusolver", "cusparse"]
    assert gpus.missing_compiler_parts() == ["libdevice"]


def test_a_driver_that_is_not_there_is_told() -> None:
    assert gpus.machine_gpus() or "libcuda.so.1" in (gpus.driver_problem() or "")


def test_xla_is_tried() -> None:
    assert visible_gpus.why_not_xla() is None
