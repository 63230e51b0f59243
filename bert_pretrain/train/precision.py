"""The dtype of the matrix products: what this device can do, and what all ranks of a run take.

The weights' bits depend on it. So a run that goes on keeps it while its flags are the same and every rank can.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.device import DeviceConfig
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels import native
from bert_pretrain.tensorflow_compat import compat

_FLOAT32, _FLOAT16, _BFLOAT16 = "float32", "float16", "bfloat16"
_LEAST_CAPABILITY = 8, 0  # NVIDIA's compute capability from which on GPUs multiply in bfloat16
# What a forward and backward pass runs outside XLA's programs on tensors of activations.
_GPU_OPERATIONS = (
    *("AddN", "BatchMatMulV2", "BiasAdd", "BiasAddGrad", "ConcatV2", "GatherV2", "MatMul", "Mul", "Pack", "SelectV2"),
    *("Slice", "Tanh", "TanhGrad", "Transpose", "Unpack", "UnsortedSegmentSum", "ZerosLike"),
)
_CPU_INSTRUCTIONS = b"avx512_bf16", b"amx_bf16"
_TOKENS, _SECONDS = 512, 0.2  # of the measurement


class Offer(NamedTuple):
    """The dtypes in which this rank's device may multiply, best first."""

    dtypes: tuple[str, ...]
    reason: str = ""  # why it is not bfloat16, where that was asked or a GPU would be expected to have it


def for_gpu(config: DeviceConfig, details: Mapping[str, Any]) -> Offer:
    """details: of tf.config.experimental.get_device_details. ValueError where --amp_dtype names what the GPU lacks."""
    if not (config.amp or config.manual_fp16):
        return Offer((_FLOAT32,))
    capability = details.get("compute_capability")  # absent from other vendors' builds
    if config.amp_dtype == _FLOAT16 or (config.amp_dtype == "auto" and (capability or (0, 0)) < _LEAST_CAPABILITY):
        return Offer((_FLOAT16,))
    reason = _why_not_bfloat16(capability)
    if config.amp_dtype == "auto":
        return Offer((_FLOAT16,), reason) if reason else Offer((_BFLOAT16, _FLOAT16))
    if reason:
        raise ValueError(f"--amp_dtype=bfloat16: {reason}; give --amp_dtype=float16")
    return Offer((_BFLOAT16,))


def _why_not_bfloat16(capability: Optional[tuple[int, int]]) -> str:
    """What a GPU lacks; an empty string where it lacks nothing, as far as is known."""
    if capability and capability < _LEAST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and bfloat16 needs 8.0"
    missing = [name for name in _GPU_OPERATIONS if not compat.has_kernel(name, tf.bfloat16)]
    return f"TensorFlow {tf.__version__} has no bfloat16 kernel of {missing[0]} for GPUs" if missing else ""


def for_cpu(config: DeviceConfig, width: int, session_config: tf.compat.v1.ConfigProto) -> Offer:
    """float32, and bfloat16 where --amp_dtype names it; which is best is measured. width: of the model's layers."""
    if not ((config.amp or config.manual_fp16) and config.amp_dtype == _BFLOAT16):
        return Offer((_FLOAT32,))
    if not any(name in native.cpu_instructions() for name in _CPU_INSTRUCTIONS):
        return Offer((_FLOAT32,), "this CPU has neither AVX512_BF16 nor AMX")
    try:
        speed = _relative_speed(width, session_config)
    except tf.errors.OpError:
        return Offer((_FLOAT32,), f"TensorFlow {tf.__version__} has no bfloat16 products for CPUs")
    if speed <= 1.0:
        return Offer((_FLOAT32, _BFLOAT16), f"bfloat16 products have {speed:.2f} of float32's speed here")
    return Offer((_BFLOAT16, _FLOAT32))


def agree(world: World, offer: Offer, previous: Optional[str]) -> tuple[str, list[str]]:
    """The dtype for all ranks, and a line for the user where it is not what was asked. A collective.

    previous: of the run's last start, where its flags were the same. Otherwise the best for all ranks; where they
    differ, none takes bfloat16. Ranks whose devices have no dtype in common keep their own; preflight.py refuses them.
    """
    offers = world.allgather(offer)
    common = [dtype for dtype in offers[0].dtypes if all(dtype in other.dtypes for other in offers)]
    best = {other.dtypes[0] for other in offers}
    if not common:
        return offer.dtypes[0], []
    if previous in common:
        chosen = previous
    else:
        chosen = common[0] if len(best) == 1 else next((one for one in common if one != _BFLOAT16), common[0])
    return chosen, list(_notices(offers, chosen, previous))


def _notices(offers: list[Offer], chosen: str, previous: Optional[str]) -> Iterator[str]:
    if chosen == _BFLOAT16:
        return
    rank = next((rank for rank, offer in enumerate(offers) if offer.reason), None)
    if rank is not None:
        where = f"rank {rank}: " if len(offers) > 1 else ""
        yield f"products in {chosen}, not bfloat16: {where}{offers[rank].reason}"
    elif any(offer.dtypes[0] == _BFLOAT16 for offer in offers):
        cause = "as at the previous start of this run" if chosen == previous else "which all ranks can compute"
        yield f"products in {chosen}, not bfloat16, {cause}"


def _relative_speed(width: int, session_config: tf.compat.v1.ConfigProto) -> float:
    """How many times faster a linear layer's product is in bfloat16 than in float32, casts included; measured."""
    with tf.Graph().as_default(), tf.compat.v1.Session(config=session_config) as session:
        shapes = [_TOKENS, width], [width, 4 * width]
        values = [tf.random.stateless_uniform(shape, [1, 2], -1.0, 1.0) for shape in shapes]
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
