"""The device of this process: what it is called, which precision it takes, how its threads are set."""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend


class Device(NamedTuple):
    """What arithmetic this process does and where."""

    name: str  # "cpu" or the card's model
    is_card: bool
    card: int  # which of the visible ones
    compute_dtype: tf.DType
    backend: Backend
    notices: list[str]  # settings that cannot take effect here, and why


def choose(config: DeviceConfig, given: set[str], local_rank: int = 0) -> Device:
    """Looks at the hardware. `given` names the flags that the person set; only those are answered.

    The ranks of a machine take the visible cards in their order, so a person's CUDA_VISIBLE_DEVICES is kept; where
    each rank sees but one card, that one is its own. ValueError where there are more ranks than visible cards.
    """
    cards = tf.config.list_physical_devices("GPU")
    if 1 < len(cards) <= local_rank:
        raise ValueError(
            f"this machine has more than {local_rank} ranks but shows {len(cards)} cards; start {len(cards)} ranks "
            f"(NP={len(cards)}) or show more cards in CUDA_VISIBLE_DEVICES"
        )
    card = local_rank if len(cards) > 1 else 0
    wants_half = config.amp or config.manual_fp16
    notices = []
    if not cards:
        half = [name for name in ("amp", "manual_fp16") if name in given and getattr(config, name)]
        if half:
            notices.append(f"--{half[0]}: no card here; a CPU computes float16 slower than float32, so float32 it is")
    if "iterations_per_loop" in given:
        notices.append("--iterations_per_loop: concerns TPUs only; each session.run is one update here")
    name = tf.config.experimental.get_device_details(cards[card]).get("device_name", "gpu") if cards else "cpu"
    dtype = tf.float16 if cards and wants_half else tf.float32
    backend, reason = _backend(config, bool(cards))
    notices += [reason] if reason else []
    return Device(name, bool(cards), card, dtype, backend, notices)


def _backend(config: DeviceConfig, is_card: bool) -> tuple[Backend, Optional[str]]:
    """What was measured to be best here and can be had (docs/decisions.md), and why it is not the native one."""
    graph = Backend.XLA if config.use_xla else Backend.PLAIN
    if is_card or not config.native_kernels:
        return graph, None
    try:
        native.library()
    except native.UnavailableError as reason:
        return graph, f"no native kernels: {reason}; {graph.value} ones it is, which are slower"
    return Backend.NATIVE, None


def session_config(config: DeviceConfig, card: int, local_size: int = 1) -> tf.compat.v1.ConfigProto:
    """Threads and memory of the training session."""
    proto = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=config.intra_op_threads or _num_threads(local_size),
        inter_op_parallelism_threads=config.inter_op_threads,
    )
    proto.gpu_options.visible_device_list = str(card)
    proto.gpu_options.allow_growth = True
    return proto


def _num_threads(local_size: int) -> int:
    """This rank's share of the machine's cores, or the cores that the launcher bound it to where those are fewer."""
    return max(1, min(len(os.sched_getaffinity(0)), (os.cpu_count() or 1) // local_size))
