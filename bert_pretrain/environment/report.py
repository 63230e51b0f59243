"""What training has on this machine, a line each, and what is missing with its remedy. The end of init_tf.sh."""

from __future__ import annotations

import collections
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from bert_pretrain.environment import facts
from bert_pretrain.system import gpus

_TENSORFLOW = ["-m", "bert_pretrain.tensorflow_compat.visible_gpus", "--report"]
_HOROVOD = """
from bert_pretrain.tensorflow_compat import tensorflow_import
with tensorflow_import.imported_quickly():
    import tensorflow
import horovod.tensorflow as hvd
print(*(name for name in ("nccl", "mpi", "gloo") if getattr(hvd, f"{name}_built")()))
"""
_MPI = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version().partition(",")[0])
"""
_INSTALL_HOROVOD = "bash init_tf.sh --horovod"
_BUILD_AGAIN = "remove .venv, then: bash init_tf.sh --horovod"
_THROUGH_HOSTS = "each update's gradients go through the memory of the hosts"


def report_lines() -> list[str]:
    """The lines. On a machine without GPUs it is one, for which nothing is started."""
    installed, shown = facts.installed(), gpus.machine_gpus()
    if not shown:
        return [_without_gpus(installed)]
    kinds = collections.Counter(re.sub(r"^GPU +\d+: ", "", line) for line in shown)
    found = ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
    answer, reason = _ask(_TENSORFLOW)
    if answer is None:
        return [f"GPUs: {found}; TensorFlow cannot be started: {reason}"]
    seen = json.loads(answer)
    lines = [f"GPUs: {found}; {_visibility(seen, len(shown))}"]
    if seen["is_for_gpus"]:
        lines += [f"XLA: {_compiler(seen)}", f"gradients of several GPUs: {_exchange(seen, installed)}"]
    return [*lines, f"MPI: {_mpi(installed)}"]


def _ask(arguments: Sequence[str]) -> tuple[Optional[str], str]:
    """What this Python prints, None where it fails; why. A process of its own, whose crash hides nothing else."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return (None if done.returncode else done.stdout.strip()), reason


def _without_gpus(installed: Mapping[str, str]) -> str:
    ranks = f"several processes need {_INSTALL_HOROVOD}"
    if "horovod" in installed and _mpirun():
        ranks = f"several processes have Horovod {installed['horovod']} and MPI"
    return f"no GPU: TensorFlow {facts.tensorflow_version() or ''} trains on the CPU; {ranks}"


def _visibility(seen: Mapping[str, Any], num_shown: int) -> str:
    version, number = seen["version"], seen["num_gpus"]
    if number:
        return f"TensorFlow {version} sees {'all' if number == num_shown else number}"
    hidden = "" if gpus.shown_gpus() else "CUDA_VISIBLE_DEVICES hides them; "
    return f"TensorFlow {version} sees none: {hidden}{seen['why_none']}"


def _compiler(seen: Mapping[str, Any]) -> str:
    missing = gpus.missing_compiler_parts() if seen["cuda"] else []
    remedy = f"; without {' and '.join(missing)}: pip install {_wheels(seen, 'cuda-nvcc')}" if missing else ""
    if not seen["num_gpus"]:
        return f"not tried, for TensorFlow sees no GPU{remedy}"
    if seen["why_not_xla"] is None:
        return "compiles for the GPUs"
    return f"does not compile for the GPUs, so that plain kernels are used, slower: {seen['why_not_xla']}{remedy}"


def _exchange(seen: Mapping[str, Any], installed: Mapping[str, str]) -> str:
    if "horovod" not in installed:
        return f"Horovod is not installed, which one GPU does without: {_INSTALL_HOROVOD}"
    answer, reason = _ask(["-c", _HOROVOD])
    horovod = f"Horovod {installed['horovod']}"
    if answer is None:
        return f"{horovod} cannot be started: {reason}; {_BUILD_AGAIN}"
    built = answer.split()
    if "nccl" in built:
        return f"{horovod} with NCCL"
    if not seen["cuda"]:
        return f"{horovod} without NCCL: {_THROUGH_HOSTS}, unless the vendor has a Horovod of its own"
    if facts.cuda_wheels() or facts.has_system_nccl():
        return f"{horovod} was built without NCCL: {_THROUGH_HOSTS}; {_BUILD_AGAIN}"
    wheels = _wheels(seen, "nccl", "cuda-runtime", "cuda-nvcc")
    return (
        f"{horovod} was built without NCCL: {_THROUGH_HOSTS}; pip install {wheels} (or on the system cuda-nvcc, "
        f"libnccl2 and libnccl-dev), then: pip uninstall horovod, and {_INSTALL_HOROVOD}"
    )


def _wheels(seen: Mapping[str, Any], *names: str) -> str:
    """NVIDIA's wheels of these names for the CUDA that TensorFlow was built with."""
    return " ".join(f"nvidia-{name}-cu{seen['cuda'].partition('.')[0]}" for name in names)


def _mpi(installed: Mapping[str, str]) -> str:
    mpirun = _mpirun()
    if mpirun is None or "mpi4py" not in installed:
        missing = "mpirun" if mpirun is None else "mpi4py"
        return f"{missing} is not installed, which one GPU does without: {_INSTALL_HOROVOD}"
    answer, reason = _ask(["-c", _MPI])
    return f"{answer}, {mpirun}" if answer else f"mpi4py cannot be started beside {mpirun}: {reason}"


def _mpirun() -> Optional[str]:
    """The environment's own, else the one on PATH."""
    beside_python = Path(sys.executable).parent / "mpirun"
    return str(beside_python) if beside_python.exists() else shutil.which("mpirun")
