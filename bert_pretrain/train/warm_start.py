"""Loads --init_checkpoint, reports what matched, fails on mismatches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf

from bert_pretrain.hugging_face.safetensors_reader import SafetensorsReader
from bert_pretrain.train import checkpoints

_SHOWN = 3  # variables of each kind that a message names


def load(prefix: str, weights: Mapping[str, tf.Variable], slots: Mapping[str, tf.Variable], allow_partial: bool) -> str:
    """Makes the variables start from the checkpoint's values; returns the report.

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
    if isinstance(reader, SafetensorsReader):
        for name in found.matched:
            _start_from(reader, name, wanted[name])
    elif found.matched:
        tf.compat.v1.train.init_from_checkpoint(prefix, {name: wanted[name] for name in found.matched})
    return ", ".join([report, *problems, f"{len(found.extra)} of its tensors not used{_kinds(found.extra)}"])


def _start_from(reader: SafetensorsReader, name: str, variable: tf.Variable) -> None:
    """What init_from_checkpoint does with a TF1 checkpoint. The value is read when the variable is initialized."""
    value = tf.numpy_function(lambda: reader.get_tensor(name), [], tf.float32)
    value.set_shape(variable.shape)
    variable._initializer_op = variable.assign(value).op


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
