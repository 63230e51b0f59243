"""The GPUs that this machine shows, whether or not TensorFlow can use them. Standard library only."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess

_TOOLS = ("nvidia-smi", "ixsmi")  # of NVIDIA and Iluvatar
_SECONDS = 20.0  # a driver that starts takes several


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
