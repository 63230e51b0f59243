"""What this machine, this Python and its environment have, as far as an installation depends on it."""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple, Optional

from bert_pretrain.environment.pins import canonical
from bert_pretrain.environment.versions import RELEASES, TESTED, find_release, is_same_release, this_python
from bert_pretrain.system import gpus

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-rocm", "intel-tensorflow")
_COUNT_DEVICES = """
from bert_pretrain.system import gpus
gpus.load_cusolver()
import tensorflow as tf
print(tf.__version__, len([device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]))
"""
# CUDA -> headers of libcu++, which CUDA's own include. The wheels of 12.0 to 12.2 are empty; the newest serves those.
_HEADERS = {"11": "nvidia-cuda-cccl-cu11==11.8.89.post1", "12": "nvidia-cuda-cccl-cu12==12.9.27"}


class Facts(NamedTuple):
    """What the plan of an installation depends on."""

    python: str  # path of the interpreter
    constraints: str  # path of the file for pip's --constraint
    device: Optional[str]  # the extra that brings TensorFlow, cpu or gpu; None: the installed TensorFlow is kept
    version: str  # TensorFlow's
    installed: Mapping[str, str]  # distribution -> version
    mpirun: Optional[str]  # the MPI of an environment that is kept


def installed() -> dict[str, str]:
    """Distribution -> version of this interpreter's environment."""
    return {canonical(d.metadata["Name"]): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}


def tensorflow_version() -> Optional[str]:
    """The version of the installed TensorFlow if it is supported, else None. Does not import it."""
    found = installed()
    version = next((found[name] for name in _TENSORFLOWS if name in found), None)
    return version if version and find_release(version) else None


def tensorflow_for_gpus(requested: str) -> Optional[str]:
    """The version of a TensorFlow here that drives a GPU or is a vendor's build, None without one.

    Any supported version will do, unless the user requested one. A TensorFlow that is not kept is named on stderr.
    """
    if this_python() not in TESTED or importlib.util.find_spec("tensorflow") is None or "tensorflow-cpu" in installed():
        return None
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _COUNT_DEVICES]
    probe = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        print_to_stderr(
            f"TensorFlow of {sys.executable} cannot be imported ({reason}); not used, nothing is changed there."
        )
        return None
    version, num_gpus = probe.stdout.split()[-2:]
    if not (int(num_gpus) or "+" in installed().get("tensorflow", version)):  # '+' marks a vendor's build
        return None
    if find_release(version) is None:
        supported = f"supported are {RELEASES[0].version} to {RELEASES[-1].version}"
        print_to_stderr(
            f"{sys.executable} has TensorFlow {version} for GPUs; {supported}; not used, nothing is changed there."
        )
        return None
    if requested and not is_same_release(version, requested):
        print_to_stderr(
            f"{sys.executable} has TensorFlow {version} for GPUs; not used, because {requested} was requested."
        )
        return None
    return version


def choose_device(before: Optional[str]) -> str:
    """The extra with the TensorFlow for this machine, or `before`, the one that .venv was set up with."""
    here = "gpu" if platform.system() == "Linux" and gpus.list_gpus("nvidia-smi") else "cpu"
    if shutil.which("ixsmi"):
        print_to_stderr(
            "This machine has Iluvatar GPUs, but the active environment has no TensorFlow for them; the one for CPUs "
            "trains with --device=cpu alone."
        )
    if (before, here) == ("cpu", "gpu"):
        print_to_stderr(
            "This machine has a GPU, but .venv has the TensorFlow for CPUs; to change it, remove .venv first."
        )
    return before or here


class CudaWheels(NamedTuple):
    """NVIDIA's wheels in this environment, as far as Horovod with NCCL is built with them."""

    includes: list[str]  # folders with the headers of CUDA's runtime and of NCCL
    cudart: str  # the library libcudart.so.*
    nccl: str  # the library libnccl.so.*
    headers: str  # the requirement of a wheel with more of CUDA's headers, which TensorFlow does not bring


def cuda_wheels() -> Optional[CudaWheels]:
    """The wheels that tensorflow[and-cuda] brings; None where one is missing."""
    runtime, nccl, compiler = map(gpus.wheel_folder, ("cuda_runtime", "nccl", "cuda_nvcc"))
    cudart, libnccl = (
        next(iter(glob.glob(os.path.join(glob.escape(folder), "lib", f"{name}.so.*"))), "")
        for folder, name in ((runtime, "libcudart"), (nccl, "libnccl"))
    )
    majors = [name[-2:] for name in installed() if re.fullmatch(r"nvidia-cuda-runtime-cu\d\d", name)]
    headers = _HEADERS.get(majors[0], "") if majors else ""
    if not (runtime and nccl and compiler and cudart and libnccl and headers):
        return None
    return CudaWheels(
        [os.path.join(folder, "include") for folder in (runtime, nccl, compiler)], cudart, libnccl, headers
    )


def has_system_nccl() -> bool:
    """Whether CUDA's compiler and NCCL's library for development are installed on the system."""
    # Follows Horovod's installation guide; not run on a machine with GPUs.
    if not shutil.which("nvcc"):
        return False
    libraries = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    return "libnccl.so " in libraries or bool(os.environ.get("HOROVOD_NCCL_HOME"))


def print_to_stderr(line: str) -> None:
    """Prints to stderr; stdout is for the path of the environment's Python."""
    print(line, file=sys.stderr, flush=True)
