"""Runs a function of tensors as one program compiled by XLA, or operation by operation."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import Callable, Optional, Protocol, TypeVar

import tensorflow as tf

from bert_pretrain.tensorflow_compat.typed import program_with_gradient

T = TypeVar("T")


class Run(Protocol):
    """run(function, *tensors, **constants) is function(*tensors, **constants)."""

    def __call__(self, function: Callable[..., T], *tensors: Optional[tf.Tensor], **constants: Hashable) -> T: ...  # noqa: D102


def function_runner(compiled: bool) -> Run:
    """Returns run(function, *tensors, **constants), which gives function(*tensors, **constants).

    With compiled, the function is one XLA program for each combination of static shapes, dtypes and constants, and its
    gradient another one. A tensor may be None; it is None inside the function, too.
    """
    return _run_compiled if compiled else _run_plain


def _run_plain(function: Callable[..., T], *tensors: Optional[tf.Tensor], **constants: Hashable) -> T:
    return function(*tensors, **constants)


def _run_compiled(function: Callable[..., T], *tensors: Optional[tf.Tensor], **constants: Hashable) -> T:
    specs = tuple(tensor if tensor is None else tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors)
    with tf.name_scope(function.__name__.strip("_")):  # the name that a profile shows
        inputs = (tensor for tensor in tensors if tensor is not None)
        return _program(function, specs, tuple(constants.items()))(*inputs)


def run_update(function: Callable[..., None], *tensors: tf.Tensor) -> tf.Operation:
    """Runs function(*tensors), which may assign to variables of the graph, as one program compiled by XLA."""

    def program(*inputs: tf.Tensor) -> tf.Tensor:
        function(*inputs)
        return tf.constant(True)

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
    return _compiled(program, function.__name__, specs)(*tensors).op


@functools.lru_cache(maxsize=None)
def _program(
    function: Callable[..., T], specs: tuple[Optional[tf.TensorSpec], ...], constants: tuple[tuple[str, Hashable], ...]
) -> Callable[..., T]:
    """The compiled function of the tensors that are not None.

    All layers share it. Calling a tf.function would trace another one for each call inside a gradient.
    """

    def program(*inputs: tf.Tensor) -> T:
        remaining = iter(inputs)
        with program_with_gradient():
            return function(*(None if spec is None else next(remaining) for spec in specs), **dict(constants))

    return _compiled(program, function.__name__, [spec for spec in specs if spec is not None])


def _compiled(program: Callable[..., T], name: str, specs: Sequence[tf.TensorSpec]) -> Callable[..., T]:
    """The program for tensors of these specs, under this name, compiled by XLA."""
    program.__name__ = name
    return tf.function(program, jit_compile=True, autograph=False).get_concrete_function(*specs)
