"""The first minute: what the machine is, and whether anything works on its GPU."""

from __future__ import annotations

import ctypes
import os
import pathlib
import platform
import re
import shutil
import subprocess
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib

from benchmarks import training
from benchmarks.gpu_check.child import Report
from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.system import files
from bert_pretrain.system.gpus import machine_gpus
from bert_pretrain.tensorflow_compat import visible_gpus
from bert_pretrain.train import device
from bert_pretrain.train.device import Device

_ROOT = pathlib.Path(__file__).parents[2]
_QUERY = "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm", "--format=csv,noheader"
_TOOLS = {"nvidia-smi": _QUERY, "ixsmi": (), "rocm-smi": ()}  # each prints GPUs and driver
# Variables that change what is computed; others are nobody's business.
_VARIABLES = (
    *("CUDA_", "HIP_", "IX_", "NCCL_", "NVIDIA_", "ROCR_", "XLA_"),
    *("TF_CUDNN_", "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_NUM_", "TF_USE_", "TF_XLA_"),
)
# Library -> its names, newest first, the function that tells its version, and whether it returns that.
_LIBRARIES = {
    "CUDA": (("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"), "cudaRuntimeGetVersion", False),
    "cuDNN": (("libcudnn.so.9", "libcudnn.so.8"), "cudnnGetVersion", True),
    "NCCL": (("libnccl.so.2",), "ncclGetVersion", False),
}
_SIZE = 1024  # of the matrices of the products, which have the deviations of a network's


def device_settings(device_name: str) -> dict[str, Any]:
    """DeviceConfig's fields, and the trainer's flags: `auto` as in a run; `cpu`, but with a GPU's kernels, for XLA."""
    return {"device": "cpu", "native_kernels": False} if device_name == "cpu" else {}


def check_start(report: Report, device_name: str) -> None:
    """Reports what is known, a step at a time, so that a driver that hangs or crashes hides nothing else."""
    report("start", is_done=False, **_machine())
    try:
        # Without a GPU, native kernels would be compiled first.
        chosen = device.choose_device(DeviceConfig(device=device_name, native_kernels=False))
    except ValueError as error:
        report("start", is_usable=False, wrong=[str(error)])
        return
    if not chosen.is_gpu and device_name != "cpu":
        why = "nvidia-smi and /dev show none" if not machine_gpus() else "CUDA_VISIBLE_DEVICES hides them"
        report(
            "start", is_usable=False, wrong=[f"no GPU: {why}; --device=cpu runs the check with small models on the CPU"]
        )
        return
    report(
        "start", is_done=False, is_gpu=chosen.is_gpu, device=chosen.name, memory_bytes=_gpu_memory(),
        num_gpus=len(tf.config.list_physical_devices("GPU")), dtype=chosen.compute_dtype.name,
        backend=chosen.backend.value, libraries=_library_versions(),
    )  # fmt: skip
    notices, config = [*chosen.notices], device.session_config(DeviceConfig(device=device_name), chosen.gpu)
    why_not_xla = visible_gpus.why_not_xla(config)
    if why_not_xla and not notices:  # choose_device has a notice of it on a GPU
        notices.append(f"XLA does not work here: {why_not_xla}")
    dtypes = {"float32": 2.0**-11 if chosen.is_gpu else 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
    wanted = ["float32", chosen.compute_dtype.name if chosen.is_gpu else "bfloat16"]
    wrong = [line for dtype in dict.fromkeys(wanted) for line in _wrong_product(config, dtype, dtypes[dtype])]
    # Without XLA a run takes plain kernels: slower, but the rest of the check has something to say.
    report("start", is_usable=not wrong, wrong=[*wrong, *notices], figures=_figures(chosen, not why_not_xla, wanted))


def _figures(chosen: Device, has_xla: bool, dtypes: list[str]) -> str:
    xla = "compiles" if has_xla else "does not compile"
    return (
        f"TensorFlow {tf.__version__} on {chosen.name}; XLA {xla}; products in {' and '.join(dtypes)}; a run takes "
        f"{chosen.compute_dtype.name} and {chosen.backend.value} kernels"
        + (f"; {chosen.offer.reason}" if chosen.offer.reason else "")
    )


def _machine() -> dict[str, Any]:
    build = tf.sysconfig.get_build_info()
    return {
        "commit": _output("git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "machine": f"{platform.platform()}, {training.processor_name()}, {files.num_cores()} cores, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "tools": {tool: _output(tool, *flags) for tool, flags in _TOOLS.items() if shutil.which(tool)},
        "environment": {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
        "versions": {
            **{"python": platform.python_version(), "numpy": np.__version__, "tensorflow": tf.__version__},
            **{f"built for {name}": str(build[name]) for name in ("cuda_version", "cudnn_version") if name in build},
        },
    }


def _library_versions() -> dict[str, str]:
    """Of the libraries that TensorFlow has loaded, or would load."""
    return {name: _library_version(*how) for name, how in _LIBRARIES.items()}


def _library_version(names: tuple[str, ...], function: str, is_returned: bool) -> str:
    with open("/proc/self/maps", encoding="utf-8") as file:
        loaded = {os.path.basename(path): path for path in re.findall(r"\S*/lib\S+\.so[.\d]*", file.read())}
    for name in names:
        try:
            tell = getattr(
                ctypes.CDLL(next((path for one, path in loaded.items() if one.startswith(name)), name)), function
            )
        except (OSError, AttributeError):
            continue
        if is_returned:
            tell.restype = ctypes.c_size_t
            return str(tell())
        number = ctypes.c_int()
        tell(ctypes.byref(number))
        return str(number.value)
    return "not found"


def _wrong_product(config: tf.compat.v1.ConfigProto, dtype: str, roundoff: float) -> list[str]:
    """Why a product in this dtype is not right: one line, or none.

    Its operands are rounded to the dtype beforehand. So the device's error is that of its sums, which it makes in
    float32, and of the result: 4 u is allowed. float32 itself is allowed a GPU's TF32, and on a CPU 32 u, its sums'.
    """
    random = np.random.default_rng(0)
    values = [random.standard_normal([_SIZE, _SIZE], np.float32) * np.float32(0.02) for _ in range(2)]
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            given = [tf.compat.v1.placeholder(tf.float32, [_SIZE, _SIZE]) for _ in values]
            rounded = [tf.cast(one, dtype) for one in given]
            fetches = [tf.cast(one, tf.float32) for one in (*rounded, tf.matmul(*rounded))]
            left, right, found = session.run(fetches, dict(zip(given, values)))
    except (tf.errors.OpError, TypeError) as error:
        return [f"a product in {dtype}: {type(error).__name__}: {str(error).strip().splitlines()[0]}"]
    expected = left.astype(np.float64) @ right
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    allowed = (32 if roundoff < 1e-6 else 4) * roundoff
    if difference <= allowed:
        return []
    return [f"a product in {dtype} is wrong: {difference:.2g} of its norm, {allowed:.2g} allowed"]


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
