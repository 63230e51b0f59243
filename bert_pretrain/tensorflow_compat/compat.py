"""What differs between TensorFlow 2.6 and the newest. No other module asks for a version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import tensorflow as tf
from tensorflow.python.framework import kernels


def tf_estimator() -> Optional[ModuleType]:
    """tf.estimator, or None from TensorFlow 2.16 on, which removed it."""
    return getattr(tf, "estimator", None)


def disable_autotune(options: tf.data.Options) -> None:
    """Keeps tf.data from changing the number of parallel calls. The option moved in TensorFlow 2.7."""
    if hasattr(options, "autotune"):
        options.autotune.enabled = False
    else:
        options.experimental_optimization.autotune = False


def dense(gradient: Union[tf.Tensor, tf.IndexedSlices]) -> tf.Tensor:
    """A gradient as a tensor. A gather's gradient is IndexedSlices.

    TensorFlow 2.6 does not convert the argument of a concrete function, and all versions warn when they convert
    IndexedSlices of unknown shape.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    assert gradient.dense_shape is not None, "a gather's gradient has it"
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, gradient.dense_shape[0])


def has_kernel(operation: str, dtype: tf.DType, device_type: str = "GPU") -> bool:
    """True where this build of TensorFlow has a kernel of the operation for tensors of this dtype."""
    names, number = ("T", "Tparams"), dtype.as_datatype_enum
    return any(
        kernel.device_type == device_type
        and all(number in one.allowed_values.list.type for one in kernel.constraint if one.name in names)
        for kernel in kernels.get_registered_kernels_for_op(operation).kernel
    )


def require_determinism() -> None:
    """From here on, this process's operations give the same bits each time. ValueError where TensorFlow cannot."""
    enable = getattr(tf.config.experimental, "enable_op_determinism", None)
    if enable is None:  # 2.6 and 2.7 refuse a gather's gradient instead
        raise ValueError(f"--deterministic needs TensorFlow 2.8 or later on GPUs, this is {tf.__version__}")
    tf.random.set_seed(0)  # unused: each of our random operations has a seed of its own
    enable()


def compile_flags() -> list[str]:
    """The C++ compiler's flags for operations of this TensorFlow.

    Old wheels name no language standard; they were built with C++14, and functions that take an absl::string_view have
    another name under C++17.
    """
    flags = tf.sysconfig.get_compile_flags()
    return flags if any("-std=" in flag for flag in flags) else [*flags, "-std=c++14"]


def xla_link_flags() -> list[str]:
    """The linker's flags for functions that XLA calls: its registry is in the library beside TensorFlow's own."""
    return [*tf.sysconfig.get_link_flags(), f"-L{Path(tf.__file__).parent}", "-l:libtensorflow_cc.so.2"]


def call_stablehlo(
    inputs: Sequence[tf.Tensor], module: str, outputs: Sequence[tuple[tf.DType, Sequence[Optional[int]]]]
) -> list[tf.Tensor]:
    """The results of a StableHLO module's main function, inside a program that XLA compiles. From TensorFlow 2.20 on.

    module: the text, whose unknown sizes XLA replaces by those of inputs. outputs: dtypes and shapes of the results.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    results: Any = gen_xla_ops.xla_call_module(
        list(inputs),
        version=5,
        module=module,
        Tout=[dtype for dtype, _ in outputs],
        Sout=[tf.TensorShape(shape) for _, shape in outputs],
        platforms=["CUDA"],
        dim_args_spec=[],
        function_list=[],
        has_token_input_output=False,
        disabled_checks=["platform"],  # tests run it on CPUs
    )
    return results
