"""Opens --init_checkpoint, reports what matched, fails on mismatches. start_values.py assigns what matched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.train import checkpoints
from bert_pretrain.train.checkpoints import Reader

_SHOWN = 3  # variables of each kind that a message names


class Loaded(NamedTuple):
    """A checkpoint that fits."""

    report: str
    stored: dict[str, Reader]  # by variable, for start_values.initialize


def load(
    prefix: str, weights: Mapping[str, tf.Variable], slots: Mapping[str, tf.Variable], allow_partial: bool
) -> Loaded:
    """Opens and checks a checkpoint from whose values the variables are to start.

    weights are always loaded; slots holds the optimizer's variables with --init_optimizer_state, else nothing.
    ValueError where a variable is missing or has another shape, unless allow_partial.
    """
    wanted = {**weights, **slots}
    prefix = checkpoints.resolve(prefix)
    reader = checkpoints.open_reader(prefix, "init_checkpoint")
    found = checkpoints.compare(reader, {name: variable.shape.as_list() for name, variable in wanted.items()})
    problems = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (("missing", found.missing), ("of another shape", found.misshaped))
        if names
    ]
    report = f"init_checkpoint {prefix}: {_matched(found.matched, weights, slots)}"
    if problems and not allow_partial:
        held = _some(sorted(reader.get_variable_to_shape_map()))
        raise ValueError(
            f"--{report}, {', '.join(problems)}; the checkpoint holds {held}. "
            "Give the checkpoint's own bert_config.json (config.json), or --allow_partial_init to start those at random"
        )
    checkpoints.open_whole(prefix, "init_checkpoint", found.matched)
    report = ", ".join([report, *problems, f"{len(found.extra)} of its tensors not used{_kinds(found.extra)}"])
    return Loaded(report, dict.fromkeys(found.matched, reader))


def _matched(matched: Iterable[str], weights: Mapping[str, tf.Variable], slots: Mapping[str, tf.Variable]) -> str:
    matched = set(matched)
    text = f"{len(matched & set(weights))} of {len(weights)} variables matched"
    if slots:
        text += f", {len(matched & set(slots))} of {len(slots)} of the optimizer's"
    return text


def _kinds(names: list[str]) -> str:
    """' (796 slots, beta1_power, beta2_power, global_step)' and the like."""
    slots = [name for name in names if name.rsplit("/", 1)[-1] in ("LAMB", "LAMB_1", "adam_m", "adam_v")]
    others = [name for name in names if name not in slots]
    parts = ([f"{len(slots)} optimizer slots"] if slots else []) + ([_some(others)] if others else [])
    return f" ({', '.join(parts)})" if parts else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
