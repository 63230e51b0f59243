"""Running a function of tensors compiled by XLA, or as plain operations."""

from __future__ import annotations

import functools
from typing import Any, Callable

import tensorflow as tf


def runner(compiled: bool) -> Callable[..., Any]:
    """run(function, *tensors, **numbers); where compiled, the numbers are part of the program."""
    if not compiled:
        return lambda function, *tensors, **numbers: function(*tensors, **numbers)
    return lambda function, *tensors, **numbers: _compile(function)(*tensors, **numbers)


@functools.cache
def _compile(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True, autograph=False)
