"""The device of this process: what it is called, which precision it takes, how its threads are set."""

from __future__ import annotations

import os
from typing import NamedTuple

import tensorflow as tf

from bert_pretrain.config.training import DeviceConfig


class Device(NamedTuple):
    """What arithmetic this process does and where."""

    name: str  # "cpu" or the card's model
    is_card: bool
    compute_dtype: tf.DType
    notices: list[str]  # settings that cannot take effect here, and why


def choose(config: DeviceConfig, given: set[str]) -> Device:
    """Looks at the hardware. `given` names the flags that the person set; only those are answered."""
    cards = tf.config.list_physical_devices("GPU")
    wants_half = config.amp or config.manual_fp16
    notices = []
    if not cards:
        half = [name for name in ("amp", "manual_fp16") if name in given and getattr(config, name)]
        if half:
            notices.append(f"--{half[0]}: no card here; a CPU computes float16 slower than float32, so float32 it is")
    if "iterations_per_loop" in given:
        notices.append("--iterations_per_loop: concerns TPUs only; each session.run is one update here")
    name = tf.config.experimental.get_device_details(cards[0]).get("device_name", "gpu") if cards else "cpu"
    dtype = tf.float16 if cards and wants_half else tf.float32
    return Device(name, bool(cards), dtype, notices)


def session_config(config: DeviceConfig, local_rank: int) -> tf.compat.v1.ConfigProto:
    """Threads and memory of the training session."""
    proto = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=config.intra_op_threads or len(os.sched_getaffinity(0)),
        inter_op_parallelism_threads=config.inter_op_threads,
    )
    # Which card a rank uses is decided by the order of the visible ones, so a person's own mapping is kept.
    proto.gpu_options.visible_device_list = str(local_rank)
    proto.gpu_options.allow_growth = True
    return proto
