"""The GPUs that this machine shows, whether or not TensorFlow can use them, and what they need.

Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import glob
import importlib.util
import os
import re
import shutil
import subprocess
from typing import Optional

_TOOLS = ("nvidia-smi", "ixsmi")  # of NVIDIA and Iluvatar
_SECONDS = 20.0  # a driver that starts takes several
# What TensorFlow loads on NVIDIA's GPUs, by the names of the wheels nvidia.NAME and of the libraries.
_LIBRARIES = ("cublas", "cudnn", "cufft", "cusolver", "cusparse")
_NVCC = "cuda_nvcc"  # the wheel with the parts of CUDA's compiler


def list_gpus(tool: str) -> list[str]:
    """What a vendor's tool says with -L of each GPU, like 'GPU 0: NVIDIA H200'; empty without the tool or its GPUs."""
    if not shutil.which(tool):
        return []
    try:
        answer = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if answer.returncode:
        return []
    return [line.partition(" (UUID")[0].strip() for line in answer.stdout.splitlines() if line.startswith("GPU ")]


def machine_gpus() -> list[str]:
    """The GPUs that a vendor's tool or, without one, device files show, one entry each."""
    for tool in _TOOLS:
        found = list_gpus(tool)
        if found:
            return found
    return sorted(path for path in glob.glob("/dev/*[0-9]") if re.fullmatch(r"/dev/(nvidia|iluvatar)\d+", path))


def shown_gpus() -> list[str]:
    """machine_gpus, but none where the user hides them from CUDA."""
    return [] if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1") else machine_gpus()


def are_nvidia() -> bool:
    """Whether the GPUs that this machine shows, if any, are NVIDIA's as far as is known."""
    return not any("iluvatar" in gpu.lower() for gpu in machine_gpus())


def load_cusolver() -> None:
    """Loads the wheel nvidia-cusolver, which TensorFlow 2.21 does not find by itself: it would see no GPU.

    To be called before TensorFlow is imported. Public report: github.com/tensorflow/tensorflow/issues/117538.
    """
    folder = wheel_folder("cusolver")
    for path in glob.glob(os.path.join(glob.escape(folder), "lib", "libcusolver.so.*")) if folder else ():
        with contextlib.suppress(OSError):  # TensorFlow then sees no GPU, which visible_gpus.py refuses
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def driver_problem() -> Optional[str]:
    """Why NVIDIA's driver does not serve this process, with a remedy; None where it does."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"the driver's library cannot be loaded ({error}); in a container: docker run --gpus=all"
    code = driver.cuInit(0)
    return f"the driver's cuInit fails with error {code}; nvidia-smi and dmesg say more" if code else None


def missing_libraries() -> list[str]:
    """Of the libraries that TensorFlow needs on NVIDIA's GPUs, those that neither a wheel nor the system has."""
    return [name for name in _LIBRARIES if not wheel_folder(name) and not ctypes.util.find_library(name)]


def missing_compiler_parts() -> list[str]:
    """Of what XLA compiles with on NVIDIA's GPUs, that which neither a wheel nor the system has: ptxas, libdevice."""
    folders = [wheel_folder(_NVCC), *glob.glob("/usr/local/cuda*"), os.environ.get("CUDA_HOME", "")]
    parts = {"ptxas": "bin/ptxas", "libdevice": "nvvm/libdevice/libdevice.10.bc"}
    found = {name for name, path in parts.items() for folder in folders if os.path.exists(os.path.join(folder, path))}
    return [name for name in parts if name not in found and not shutil.which(name)]


def wheel_folder(name: str) -> str:
    """The folder of NVIDIA's wheel with the package nvidia.NAME in this environment; empty without it."""
    try:
        package = importlib.util.find_spec(f"nvidia.{name}")
    except ModuleNotFoundError:  # no wheel of NVIDIA's is installed
        return ""
    return next(iter(package.submodule_search_locations or ()), "") if package else ""
