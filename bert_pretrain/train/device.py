"""The device of this process: its name, the dtype of its matrix products, its kernels, its threads."""

from __future__ import annotations

import collections
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.distributed.messages import exchanged
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels import fused, native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.model.layers import Precision
from bert_pretrain.system import files
from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.tensorflow_compat.typed import ConfigProto, Session
from bert_pretrain.tensorflow_compat.visible_gpus import visible_gpus, why_not_xla

_FLOAT32, _FLOAT16, _BFLOAT16 = "float32", "float16", "bfloat16"
_LEAST_CAPABILITY = 8, 0  # NVIDIA's compute capability from which on GPUs multiply in bfloat16
# What a forward and backward pass runs outside XLA's programs on tensors of activations.
_GPU_OPERATIONS = (
    *("AddN", "BatchMatMulV2", "BiasAdd", "ConcatV2", "GatherV2", "MatMul", "Mul", "Pack", "Pad", "SelectV2"),
    *("Slice", "Tanh", "TanhGrad", "Transpose", "Unpack", "UnsortedSegmentSum", "ZerosLike"),
)
_CPU_INSTRUCTIONS = b"avx512_bf16", b"amx_bf16"
_TOKENS, _SECONDS = 512, 0.2  # of the measurement


@exchanged
class DtypeOffer(NamedTuple):
    """The dtypes in which this rank's device may multiply, best first."""

    dtypes: tuple[str, ...]
    reason: str = ""  # why it is not bfloat16, where that was asked or a GPU would be expected to have it


def offer_of_gpu(config: DeviceConfig, details: Mapping[str, Any]) -> DtypeOffer:
    """details: of tf.config.experimental.get_device_details. ValueError where --amp_dtype names what the GPU lacks."""
    if not (config.amp or config.manual_fp16):
        return DtypeOffer((_FLOAT32,))
    capability = details.get("compute_capability")  # absent from other vendors' builds
    if config.amp_dtype == _FLOAT16 or (config.amp_dtype == "auto" and (capability or (0, 0)) < _LEAST_CAPABILITY):
        return DtypeOffer((_FLOAT16,))
    reason = _why_not_bfloat16(capability)
    if config.amp_dtype == "auto":
        return DtypeOffer((_FLOAT16,), reason) if reason else DtypeOffer((_BFLOAT16, _FLOAT16))
    if reason:
        raise ValueError(f"--amp_dtype=bfloat16: {reason}; give --amp_dtype=float16")
    return DtypeOffer((_BFLOAT16,))


def _why_not_bfloat16(capability: Optional[tuple[int, int]]) -> str:
    """What a GPU lacks; an empty string where it lacks nothing, as far as is known."""
    if capability and capability < _LEAST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and bfloat16 needs 8.0"
    missing = [name for name in _GPU_OPERATIONS if not compat.has_kernel(name, tf.bfloat16)]
    return f"TensorFlow {tf.__version__} has no bfloat16 kernel of {missing[0]} for GPUs" if missing else ""


def offer_of_cpu(config: DeviceConfig, width: int, session_config: ConfigProto) -> DtypeOffer:
    """float32, and bfloat16 where --amp_dtype names it; which is best is measured. width: of the model's layers."""
    if not ((config.amp or config.manual_fp16) and config.amp_dtype == _BFLOAT16):
        return DtypeOffer((_FLOAT32,))
    if not any(name in native.cpu_instructions() for name in _CPU_INSTRUCTIONS):
        return DtypeOffer((_FLOAT32,), "this CPU has neither AVX512_BF16 nor AMX")
    try:
        speed = _relative_speed(width, session_config)
    except tf.errors.OpError:
        return DtypeOffer((_FLOAT32,), f"TensorFlow {tf.__version__} has no bfloat16 products for CPUs")
    if speed <= 1.0:
        return DtypeOffer((_FLOAT32, _BFLOAT16), f"bfloat16 products have {speed:.2f} of float32's speed here")
    return DtypeOffer((_BFLOAT16, _FLOAT32))


def agree_on_dtype(world: World, offer: DtypeOffer, previous: Optional[str]) -> tuple[str, list[str]]:
    """The dtype for all ranks, and a line for the user where it is not what was asked. A collective.

    previous: of the run's last start, where its flags were the same. Otherwise the best for all ranks; where they
    differ, none takes bfloat16. Ranks whose devices have no dtype in common keep their own; agreement.py refuses them.
    """
    offers = world.allgather(offer)
    common = [dtype for dtype in offers[0].dtypes if all(dtype in other.dtypes for other in offers)]
    best = {other.dtypes[0] for other in offers}
    if not common:
        return offer.dtypes[0], []
    if previous is not None and previous in common:
        chosen = previous
    else:
        chosen = common[0] if len(best) == 1 else next((one for one in common if one != _BFLOAT16), common[0])
    return chosen, list(_dtype_notices(offers, chosen, previous))


def _dtype_notices(offers: list[DtypeOffer], chosen: str, previous: Optional[str]) -> Iterator[str]:
    if chosen == _BFLOAT16:
        return
    rank = next((rank for rank, offer in enumerate(offers) if offer.reason), None)
    if rank is not None:
        where = f"rank {rank}: " if len(offers) > 1 else ""
        yield f"products in {chosen}, not bfloat16: {where}{offers[rank].reason}"
    elif any(offer.dtypes[0] == _BFLOAT16 for offer in offers):
        cause = "as at the previous start of this run" if chosen == previous else "which all ranks can compute"
        yield f"products in {chosen}, not bfloat16, {cause}"


def _relative_speed(width: int, session_config: ConfigProto) -> float:
    """How many times faster a linear layer's product is in bfloat16 than in float32, casts included; measured."""
    with tf.Graph().as_default(), Session(config=session_config) as session:
        shapes = [_TOKENS, width], [width, 4 * width]
        values = [tf.random.stateless_uniform(shape, (1, 2), -1.0, 1.0) for shape in shapes]
        names = ("inputs", "kernel")
        left, right = (
            tf.compat.v1.get_variable(name, initializer=value, use_resource=True) for name, value in zip(names, values)
        )
        products = [
            tf.cast(tf.matmul(tf.cast(left, dtype), tf.cast(right, dtype)), tf.float32).op
            for dtype in (tf.float32, tf.bfloat16)
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        seconds = [[], []]
        end = None
        while end is None or time.monotonic() < end:
            for product, measured in zip(products, seconds):
                begin = time.perf_counter()
                session.run(product)
                measured.append(time.perf_counter() - begin)
            end = end or time.monotonic() + _SECONDS  # the first round creates oneDNN's primitives
    single, brief = (min(measured[1:] or measured) for measured in seconds)
    return single / brief


class Device(NamedTuple):
    """Where this process computes, and how."""

    name: str  # "cpu" or the GPU's model
    is_gpu: bool
    gpu: int  # its number among the visible ones
    compute_dtype: tf.DType  # of the encoder's products
    backend: Backend
    notices: list[str]  # settings that have no effect here, each with the reason
    offer: DtypeOffer = DtypeOffer(("float32",))  # what compute_dtype could be

    @property
    def precision(self) -> Precision:
        """A CPU is fastest with float32 between the products, and native kernels have no other dtype."""
        return Precision(self.compute_dtype, self.compute_dtype if self.is_gpu else tf.float32)


def choose_device(
    config: DeviceConfig,
    explicit_flags: Collection[str] = (),
    local_rank: int = 0,
    local_size: int = 1,
    width: int = 1024,
) -> Device:
    """Looks at the hardware. explicit_flags: the flags that the user set; only those get a notice.

    local_size: ranks on this host; width: of the model's layers, for the measurement of --amp_dtype=bfloat16.

    The ranks of a host take the visible GPUs in order, so the user's CUDA_VISIBLE_DEVICES is kept; where each rank
    sees only one GPU, it takes that. ValueError where a host has more ranks than visible GPUs, and where the machine
    shows GPUs that TensorFlow does not see.
    """
    gpus = [] if config.device == "cpu" else visible_gpus()
    if 1 < len(gpus) <= local_rank:
        raise ValueError(
            f"this host has more than {local_rank} ranks but shows {len(gpus)} GPUs; start {len(gpus)} ranks "
            f"(NP={len(gpus)}) or show more GPUs in CUDA_VISIBLE_DEVICES"
        )
    gpu = local_rank if len(gpus) > 1 else 0
    is_gpu = bool(gpus)
    # TensorFlow's eager context, in which py_function runs, then has the same GPU as the sessions.
    tf.config.set_visible_devices([gpus[gpu]] if is_gpu else [], "GPU")
    if config.deterministic and is_gpu:
        compat.require_determinism()
    details: Mapping[str, Any] = tf.config.experimental.get_device_details(gpus[gpu]) if is_gpu else {}
    if is_gpu:
        name, offer = details.get("device_name", "gpu"), offer_of_gpu(config, details)
    else:
        name, offer = "cpu", offer_of_cpu(config, width, session_config(config, gpu, local_size))
    backend, why_not_fastest = _choose_backend(config, is_gpu, session_config(config, gpu, local_size))
    if is_gpu and config.attention == "fused":
        backend = _fused(backend, offer, details)
    notices = _notices(config, explicit_flags, is_gpu, backend) + ([why_not_fastest] if why_not_fastest else [])
    return Device(name, is_gpu, gpu, tf.as_dtype(offer.dtypes[0]), backend, notices, offer)


def agree_on_device(device: Device, world: World, previous: Optional[str]) -> Device:
    """The device with the dtype of products that all ranks take, and notices of what the ranks lack. A collective."""
    dtype, notices = agree_on_dtype(world, device.offer, previous)
    if device.is_gpu and world.size > 1:
        notices += _notices_of_ranks(device, world)
    return device._replace(compute_dtype=tf.as_dtype(dtype), notices=[*device.notices, *notices])


def _notices_of_ranks(device: Device, world: World) -> Iterator[str]:
    # A rank that sees a single GPU may see another one than its neighbour, as where Slurm divides them.
    place = f"GPU {device.gpu} of {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')} on {socket.gethostname()}"
    places = world.allgather(place)
    shared, num_ranks = collections.Counter(places).most_common(1)[0]
    if num_ranks > 1:
        yield f"{num_ranks} ranks share one GPU ({shared}); show each rank a GPU of its own, or start fewer (NP)"
    if world.why_through_hosts:
        yield (
            f"{world.why_through_hosts}, so each update's gradients go through the memory of the hosts; "
            "bash init_tf.sh says what is missing"
        )


def _choose_backend(config: DeviceConfig, is_gpu: bool, session_config: ConfigProto) -> tuple[Backend, Optional[str]]:
    """The fastest backend that can be had here (docs/decisions.md), and why it is not a faster one."""
    if is_gpu and config.use_xla:
        reason = why_not_xla(session_config)
        no_xla = Backend.PLAIN, f"XLA does not work here: {reason}; plain kernels, slower"
        return no_xla if reason else (Backend.XLA_LAYERS, None)
    graph = Backend.XLA if config.use_xla else Backend.PLAIN
    if is_gpu or not config.native_kernels:
        return graph, None
    try:
        native.library()
    except native.UnavailableError as reason:
        return graph, f"no native kernels: {reason}; using the slower {graph.value} kernels"
    return Backend.NATIVE, None


def _fused(backend: Backend, offer: DtypeOffer, details: Mapping[str, Any]) -> Backend:
    """The backend with attention as CUDA kernels. ValueError where this GPU or its software cannot have them."""
    if backend is not Backend.XLA_LAYERS:
        reason = "XLA does not work here, or --nouse_xla is given"
    elif offer.dtypes[0] != _BFLOAT16:
        reason = f"products are in {offer.dtypes[0]}, and it computes in bfloat16"
    else:
        try:
            fused.prepare(details.get("compute_capability") or (0, 0))
            return Backend.XLA_FUSED
        except fused.UnavailableError as error:
            reason = str(error)
    raise ValueError(f"--attention=fused: {reason}; leave it out")


def _notices(config: DeviceConfig, explicit_flags: Collection[str], is_gpu: bool, backend: Backend) -> list[str]:
    """A line for each flag that the user set and that has no effect here."""
    notices = []
    half = [name for name in ("amp", "manual_fp16") if name in explicit_flags and getattr(config, name)]
    if config.amp_dtype == "float16":
        half = [*half, "amp_dtype=float16"]
    if half and not is_gpu and config.amp_dtype != "bfloat16":
        notices.append(f"--{half[0]} ignored: no GPU; training in float32, which a CPU computes faster than float16")
    if "amp_dtype" in explicit_flags and not (config.amp or config.manual_fp16):
        notices.append("--amp_dtype has no effect with --noamp: products are in float32")
    if "use_xla" in explicit_flags and config.use_xla and backend is Backend.NATIVE:
        notices.append("--use_xla has no effect: this CPU uses native C++ kernels; --nonative_kernels turns them off")
    if config.attention == "fused" and not is_gpu:
        notices.append("--attention=fused has no effect: no GPU")
    if "deterministic" in explicit_flags and config.deterministic and not is_gpu:
        notices.append("--deterministic has no effect: a CPU gives the same bits each time")
    if "iterations_per_loop" in explicit_flags:
        notices.append("--iterations_per_loop has no effect: it concerns TPUs; each session.run is one update here")
    return notices


def session_config(config: DeviceConfig, gpu: int, local_size: int = 1) -> ConfigProto:
    """Threads, memory and graph optimization of the training session. local_size: ranks on this host."""
    proto = ConfigProto(
        intra_op_parallelism_threads=config.intra_op_threads or _num_threads(local_size),
        inter_op_parallelism_threads=config.inter_op_threads,
    )
    # Grappler takes more than half of the start of a deep network, and on CPUs its result is no faster.
    is_gpu = config.device != "cpu" and bool(tf.config.list_physical_devices("GPU"))
    proto.graph_options.rewrite_options.disable_meta_optimizer = not is_gpu
    proto.gpu_options.visible_device_list = str(gpu)
    proto.gpu_options.allow_growth = True
    if not is_gpu:
        proto.device_count["GPU"] = 0
    return proto


def _num_threads(local_size: int) -> int:
    """This rank's part of the host's cores, or the cores that the launcher bound it to where those are fewer."""
    return max(1, min(files.num_cores(), files.num_host_cores() // local_size))
