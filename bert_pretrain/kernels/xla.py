"""Runs a function of tensors as one program compiled by XLA, or operation by operation."""

from __future__ import annotations

import functools
from typing import Callable, Optional, Protocol, TypeVar

import tensorflow as tf

T = TypeVar("T")


class Run(Protocol):
    """run(function, *tensors, **numbers) is function(*tensors, **numbers)."""

    def __call__(self, function: Callable[..., T], *tensors: Optional[tf.Tensor], **numbers: float) -> T: ...  # noqa: D102


def function_runner(compiled: bool) -> Run:
    """Returns run(function, *tensors, **numbers), which gives function(*tensors, **numbers).

    With compiled, the function is one XLA program for each combination of static shapes, dtypes and numbers; the
    numbers are constants of the program. A tensor may be None; it is None inside the function, too.
    """
    return _run_compiled if compiled else _run_plain


def _run_plain(function: Callable[..., T], *tensors: Optional[tf.Tensor], **numbers: float) -> T:
    return function(*tensors, **numbers)


def _run_compiled(function: Callable[..., T], *tensors: Optional[tf.Tensor], **numbers: float) -> T:
    specs = tuple(tensor if tensor is None else tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors)
    with tf.name_scope(function.__name__.strip("_")):  # the name that a profile shows
        inputs = (tensor for tensor in tensors if tensor is not None)
        return _program(function, specs, tuple(numbers.items()))(*inputs)


@functools.lru_cache(maxsize=None)
def _program(
    function: Callable[..., T], specs: tuple[Optional[tf.TensorSpec], ...], numbers: tuple[tuple[str, float], ...]
) -> Callable[..., T]:
    """The compiled function of the tensors that are not None.

    All layers share it. Calling a tf.function would trace another one for each call inside a gradient.
    """

    def program(*inputs: tf.Tensor) -> T:
        remaining = iter(inputs)
        return function(*(None if spec is None else next(remaining) for spec in specs), **dict(numbers))

    program.__name__ = function.__name__
    traced = tf.function(program, jit_compile=True, autograph=False)
    return traced.get_concrete_function(*(spec for spec in specs if spec is not None))
