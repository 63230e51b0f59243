"""The device of this process: its name, the precision and kernels that it takes, its threads."""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.device import DeviceConfig
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.model.layers import Precision
from bert_pretrain.system import files
from bert_pretrain.train import precision
from bert_pretrain.train.precision import Offer


class Device(NamedTuple):
    """Where this process computes, and how."""

    name: str  # "cpu" or the GPU's model
    is_gpu: bool
    gpu: int  # its number among the visible ones
    compute_dtype: tf.DType  # of the encoder's products
    backend: Backend
    notices: list[str]  # settings that have no effect here, each with the reason
    offer: Offer = Offer(("float32",))  # what compute_dtype could be

    @property
    def precision(self) -> Precision:
        """A CPU is fastest with float32 between the products, and native kernels have no other dtype."""
        return Precision(self.compute_dtype, self.compute_dtype if self.is_gpu else tf.float32)


def choose(
    config: DeviceConfig, given: set[str], local_rank: int = 0, local_size: int = 1, width: int = 1024
) -> Device:
    """Looks at the hardware. `given` names the flags that the user set; only those get a notice.

    local_size: ranks on this host; width: of the model's layers, for the measurement of --amp_dtype=bfloat16.

    The ranks of a host take the visible GPUs in order, so the user's CUDA_VISIBLE_DEVICES is kept; where each rank
    sees only one GPU, it takes that. ValueError where a host has more ranks than visible GPUs.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if 1 < len(gpus) <= local_rank:
        raise ValueError(
            f"this host has more than {local_rank} ranks but shows {len(gpus)} GPUs; start {len(gpus)} ranks "
            f"(NP={len(gpus)}) or show more GPUs in CUDA_VISIBLE_DEVICES"
        )
    gpu = local_rank if len(gpus) > 1 else 0
    is_gpu = bool(gpus)
    if is_gpu:
        details = tf.config.experimental.get_device_details(gpus[gpu])
        name, offer = details.get("device_name", "gpu"), precision.for_gpu(config, details)
    else:
        name, offer = "cpu", precision.for_cpu(config, width, session_config(config, gpu, local_size))
    backend, why_not_native = _choose_backend(config, is_gpu)
    notices = _notices(config, given, is_gpu, backend) + ([why_not_native] if why_not_native else [])
    return Device(name, is_gpu, gpu, tf.as_dtype(offer.dtypes[0]), backend, notices, offer)


def agree(device: Device, world: World, previous: Optional[str]) -> Device:
    """The device with the dtype of products that all ranks take (precision.py). A collective."""
    dtype, notices = precision.agree(world, device.offer, previous)
    return device._replace(compute_dtype=tf.as_dtype(dtype), notices=[*device.notices, *notices])


def _choose_backend(config: DeviceConfig, is_gpu: bool) -> tuple[Backend, Optional[str]]:
    """The fastest backend that can be had here (docs/decisions.md), and why it is not the native one."""
    graph = Backend.XLA if config.use_xla else Backend.PLAIN
    if is_gpu or not config.native_kernels:
        return graph, None
    try:
        native.library()
    except native.UnavailableError as reason:
        return graph, f"no native kernels: {reason}; using the slower {graph.value} kernels"
    return Backend.NATIVE, None


def _notices(config: DeviceConfig, given: set[str], is_gpu: bool, backend: Backend) -> list[str]:
    """A line for each flag that the user set and that has no effect here."""
    notices = []
    half = [name for name in ("amp", "manual_fp16") if name in given and getattr(config, name)]
    if config.amp_dtype == "float16":
        half = [*half, "amp_dtype=float16"]
    if half and not is_gpu and config.amp_dtype != "bfloat16":
        notices.append(f"--{half[0]} ignored: no GPU; training in float32, which a CPU computes faster than float16")
    if "amp_dtype" in given and not (config.amp or config.manual_fp16):
        notices.append("--amp_dtype has no effect with --noamp: products are in float32")
    if "use_xla" in given and config.use_xla and backend is Backend.NATIVE:
        notices.append("--use_xla has no effect: this CPU uses native C++ kernels; --nonative_kernels turns them off")
    if "iterations_per_loop" in given:
        notices.append("--iterations_per_loop has no effect: it concerns TPUs; each session.run is one update here")
    return notices


def session_config(config: DeviceConfig, gpu: int, local_size: int = 1) -> tf.compat.v1.ConfigProto:
    """Threads, memory and graph optimization of the training session. local_size: ranks on this host."""
    proto = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=config.intra_op_threads or _num_threads(local_size),
        inter_op_parallelism_threads=config.inter_op_threads,
    )
    # Grappler takes more than half of the start of a deep network, and on CPUs its result is no faster.
    proto.graph_options.rewrite_options.disable_meta_optimizer = not tf.config.list_physical_devices("GPU")
    proto.gpu_options.visible_device_list = str(gpu)
    proto.gpu_options.allow_growth = True
    return proto


def _num_threads(local_size: int) -> int:
    """This rank's part of the host's cores, or the cores that the launcher bound it to where those are fewer."""
    return max(1, min(files.num_cores(), (os.cpu_count() or 1) // local_size))
