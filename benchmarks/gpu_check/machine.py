"""What the machine is: devices, dtypes, versions, driver."""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib

from benchmarks import training
from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.system import files
from bert_pretrain.train import device

_ROOT = pathlib.Path(__file__).parents[2]
_TOOLS = "nvidia-smi", "ixsmi", "rocm-smi"  # each prints GPUs and driver
# Variables that change what is computed; others are nobody's business.
_VARIABLES = (
    *("CUDA_", "HIP_", "IX_", "NVIDIA_", "ROCR_", "XLA_"),
    *("TF_CUDNN_", "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_NUM_", "TF_USE_", "TF_XLA_"),
)


def describe(report: Callable[[dict], None]) -> None:
    """Reports what is known, a step at a time, so that a driver that hangs or crashes hides nothing else."""
    found = {
        "is_gpu": False,
        "commit": _output("git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "system": platform.platform(),
        "processor": training.processor_name(),
        "cores": files.num_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "tools": {tool: _output(tool) for tool in _TOOLS if shutil.which(tool)},
        "environment": {n: v for n, v in os.environ.items() if n.startswith(_VARIABLES)},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "tensorflow": tf.__version__},
    }
    report(found)
    build = tf.sysconfig.get_build_info()
    found["versions"].update({name: str(build[name]) for name in sorted(build) if "version" in name})
    gpus = tf.config.list_physical_devices("GPU")
    found.update(is_gpu=bool(gpus), gpus=[_details(gpu) for gpu in gpus])
    report(found)
    found["dtypes"], found["not_dtypes"] = _dtypes()
    found["auto"] = device.choose_device(DeviceConfig(), set()).compute_dtype.name
    report(found)
    found["gpu_memory_bytes"] = _gpu_memory() if gpus else None
    report(found)


def _details(gpu: tf.config.PhysicalDevice) -> dict[str, Any]:
    return {name: str(value) for name, value in tf.config.experimental.get_device_details(gpu).items()}


def _dtypes() -> tuple[list[str], dict[str, str]]:
    """The dtypes of products that --amp_dtype can have here, and the others with the reason."""
    dtypes, missing = ["float32"], {}
    for dtype in ("float16", "bfloat16"):
        try:
            chosen = device.choose_device(DeviceConfig(amp_dtype=dtype), {"amp_dtype"})
        except ValueError as error:
            missing[dtype] = str(error)
            continue
        if chosen.compute_dtype.name == dtype:
            dtypes.append(dtype)
        else:
            missing[dtype] = "; ".join([*chosen.notices, chosen.offer.reason]).strip("; ")
    return dtypes, missing


def _gpu_memory() -> Optional[int]:
    """Bytes of the first GPU that TensorFlow may use."""
    limits = [one.memory_limit for one in device_lib.list_local_devices() if one.device_type == "GPU"]
    return limits[0] if limits else None


def _output(*command: str) -> str:
    """What a command prints, or why there is nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: {error}"
    return (
        done.stdout.strip() if not done.returncode else f"unknown: exit code {done.returncode}: {done.stderr.strip()}"
    )
