"""Attention as CUDA kernels inside XLA's programs: scores and probabilities never reach a GPU's memory.

sources/ holds the kernels, which NVRTC compiles for the GPU, and XLA's foreign functions that launch them. No GPU has
run them yet (docs/gpu.md). Letters: R rows, S slots per row, T = R * S, H hidden, N heads.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import tensorflow as tf

from bert_pretrain.kernels.dropout import NUM_HASHES, num_dropped
from bert_pretrain.kernels.xla import Run
from bert_pretrain.system import files
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError
from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient, static_size

__all__ = ["FusedAttention", "UnavailableError", "handlers", "nvrtc_image", "prepare"]

SOURCES = Path(__file__).parent / "sources"
_HEAD_SIZE, _WIDTH_MULTIPLE = 64, 64  # as in attention.cu


class FusedAttention:
    """See Kernels.attention. The kernels skip tiles of 64 queries and keys that have no example in common."""

    def __init__(self, run: Run, example_ids: tf.Tensor, num_heads: int, rate: float) -> None:
        """run: from xla.function_runner, compiled: only XLA's programs can call the kernels."""
        self._run, self._example_ids, self._num_heads, self._rate = run, example_ids, num_heads, rate

    def __call__(self, qkv: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
        """[T, 3H] bfloat16 -> [T, H]. ValueError for another dtype or size of heads, or rows of another width."""
        hidden_size, width = static_size(qkv, -1) // 3, self._example_ids.shape[1]
        if qkv.dtype != tf.bfloat16:
            raise ValueError(f"--attention=fused computes in bfloat16, not in {qkv.dtype.name}; leave it out")
        if hidden_size != self._num_heads * _HEAD_SIZE:
            size = hidden_size // self._num_heads
            raise ValueError(f"--attention=fused needs heads of {_HEAD_SIZE} units, not of {size}; leave it out")
        if width is not None and width % _WIDTH_MULTIPLE:
            raise ValueError(
                f"--attention=fused needs a --max_seq_length that is a multiple of {_WIDTH_MULTIPLE}, got {width}"
            )
        key = tf.zeros([2], tf.uint32) if bits is None else bits
        constants = {
            "num_heads": self._num_heads,
            "num_dropped": 0 if bits is None else num_dropped(self._rate, NUM_HASHES),
        }

        @custom_gradient
        def kernel(qkv: tf.Tensor) -> TensorAndGradient:
            context, log_sums = self._run(_attention, qkv, self._example_ids, key, **constants)

            def gradient(grad_context: tf.Tensor) -> tf.Tensor:
                inputs = qkv, self._example_ids, key, context, log_sums, grad_context
                return self._run(_attention_gradient, *inputs, **constants)

            return context, gradient

        return kernel(qkv)


def _attention(
    qkv: tf.Tensor, example_ids: tf.Tensor, key: tf.Tensor, *, num_heads: int, num_dropped: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the context [T, H] and the logarithms of the softmax denominators [R, N, S] float32."""
    hidden, width = num_heads * _HEAD_SIZE, example_ids.shape[1]
    outputs = [(tf.bfloat16, [qkv.shape[0], hidden]), (tf.float32, [example_ids.shape[0], num_heads, width])]
    context, log_sums = _call("bert_pretrain_attention", [qkv, example_ids, key], outputs, num_heads, num_dropped)
    return context, log_sums


def _attention_gradient(*inputs: tf.Tensor, num_heads: int, num_dropped: int) -> tf.Tensor:
    """inputs: qkv, example_ids, key, context, log_sums and the gradient of context -> that of qkv."""
    outputs = [(tf.bfloat16, inputs[0].shape.as_list()), (tf.float32, inputs[4].shape.as_list())]
    return _call("bert_pretrain_attention_grad", inputs, outputs, num_heads, num_dropped)[0]


def _call(
    name: str,
    inputs: Sequence[tf.Tensor],
    outputs: Sequence[tuple[tf.DType, Sequence[Optional[int]]]],
    num_heads: int,
    num_dropped: int,
) -> list[tf.Tensor]:
    return compat.call_stablehlo(inputs, module_text(name, num_heads, num_dropped), outputs)


_TYPES = {"qkv": "?x{3h}xbf16", "ids": "?x?xi32", "key": "2xui32", "hidden": "?x{h}xbf16", "sums": "?x{n}x?xf32"}
_SIGNATURES = {
    "bert_pretrain_attention": (["qkv", "ids", "key"], ["hidden", "sums"]),
    "bert_pretrain_attention_grad": (["qkv", "ids", "key", "hidden", "sums", "hidden"], ["qkv", "sums"]),
}


def module_text(name: str, num_heads: int, num_dropped: int) -> str:
    """A StableHLO module that calls the foreign function with inputs and outputs as in handlers.cc, for any R and S."""
    hidden = num_heads * _HEAD_SIZE
    sizes = {"{3h}": 3 * hidden, "{h}": hidden, "{n}": num_heads}
    types = {}
    for kind, text in _TYPES.items():
        for letter, size in sizes.items():
            text = text.replace(letter, str(size))
        types[kind] = f"tensor<{text}>"
    arguments, results = ([types[kind] for kind in kinds] for kinds in _SIGNATURES[name])
    named = [f"%{i}: {type_}" for i, type_ in enumerate(arguments)]
    # The shapes of the results are operands, too, by which XLA replaces the question marks.
    shape_operands = f"dense<[{len(arguments)}, {len(arguments) + 1}]> : tensor<2xi64>"
    attributes = f"num_heads = {num_heads} : i32, num_dropped = {num_dropped} : i64"
    first = hidden if "grad" not in name else 3 * hidden
    operands = ", ".join([*(f"%{i}" for i in range(len(arguments))), "%shape_0", "%shape_1"])
    return f"""
module @{name} {{
  func.func public @main({", ".join(named)}) -> ({", ".join(results)}) {{
    %tokens = stablehlo.get_dimension_size %0, dim = 0 : ({arguments[0]}) -> tensor<i32>
    %rows = stablehlo.get_dimension_size %1, dim = 0 : ({arguments[1]}) -> tensor<i32>
    %width = stablehlo.get_dimension_size %1, dim = 1 : ({arguments[1]}) -> tensor<i32>
    %t = stablehlo.reshape %tokens : (tensor<i32>) -> tensor<1xi32>
    %r = stablehlo.reshape %rows : (tensor<i32>) -> tensor<1xi32>
    %w = stablehlo.reshape %width : (tensor<i32>) -> tensor<1xi32>
    %first = stablehlo.constant dense<{first}> : tensor<1xi32>
    %heads = stablehlo.constant dense<{num_heads}> : tensor<1xi32>
    %shape_0 = stablehlo.concatenate %t, %first, dim = 0 : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
    %shape_1 = stablehlo.concatenate %r, %heads, %w, dim = 0 :
        (tensor<1xi32>, tensor<1xi32>, tensor<1xi32>) -> tensor<3xi32>
    %results:2 = stablehlo.custom_call @{name}({operands}) {{
        api_version = 4 : i32, indices_of_shape_operands = {shape_operands}, backend_config = {{{attributes}}}
      }} : ({", ".join(arguments)}, tensor<2xi32>, tensor<3xi32>) -> ({", ".join(results)})
    return %results#0, %results#1 : {", ".join(results)}
  }}
}}
"""


def handlers(name: str, more: Sequence[Path] = (), flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compiles and loads handlers.cc, and registers its functions with XLA. UnavailableError where one of it fails.

    more: headers that it includes besides those of sources/.
    """
    library = NativeLibrary(
        name,
        [*sorted(SOURCES.iterdir()), *more],
        [tf.__version__],
        [*compat.compile_flags(), *flags],
        compat.xla_link_flags(),
        "Compiling the functions that call the GPU's attention, once",
    )
    path = library.compiled(files.cache_directory("kernels"))
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path} cannot be loaded: {error}") from None
    if loaded.BertPretrainRegister():
        raise UnavailableError(f"XLA of TensorFlow {tf.__version__} refuses the functions of {path}")
    return loaded


@functools.lru_cache(maxsize=None)
def prepare(capability: tuple[int, int]) -> None:
    """Makes the kernels ready for GPUs of this compute capability. UnavailableError says what is missing."""
    if capability < (8, 0):
        raise UnavailableError(f"the GPU has compute capability {capability[0]}.{capability[1]}, it needs 8.0")
    image = nvrtc_image(f"sm_{capability[0]}{capability[1]}")
    handlers("fused").BertPretrainSetImage(image, ctypes.c_size_t(len(image)))


def nvrtc_image(architecture: str) -> bytes:
    """The kernels compiled for GPUs of this architecture ("sm_90"). UnavailableError where NVRTC lacks or fails."""
    nvrtc = _load_nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = (SOURCES / "attention.cu").read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"attention.cu", 0, None, None)
    try:
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value or 1)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed:
            reason = log.value.decode(errors="replace").strip() or f"error {failed}"
            raise UnavailableError(f"NVRTC failed for {architecture}: {reason.splitlines()[0]}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, image)
        return image.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _load_nvrtc() -> ctypes.CDLL:
    """From NVIDIA's wheel, which tensorflow[and-cuda] brings, or from the system's CUDA."""
    names = ["libnvrtc.so.12", "libnvrtc.so"]
    with_wheel = importlib.util.find_spec("nvidia")
    for folder in with_wheel.submodule_search_locations or [] if with_wheel else []:
        names[:0] = [str(path) for path in sorted(Path(folder, "cuda_nvrtc", "lib").glob("libnvrtc.so.*"))]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UnavailableError("NVRTC (libnvrtc.so) is not found: pip install nvidia-cuda-nvrtc-cu12")
