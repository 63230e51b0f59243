"""The kernels as TensorFlow's operations with their gradients written out, compiled by XLA or not.

TensorFlow's own gradients of these expressions keep every intermediate and make a dozen passes over memory. Here each
kernel keeps what its gradient needs and no more, and where XLA is used, forward and backward are one compiled loop
each. Arithmetic is float32 whatever the dtype of the data.
"""

from __future__ import annotations

import functools
import math
from typing import Callable, Optional

import tensorflow as tf

from bert_pretrain.config.model import LAYER_NORM_EPSILON
from bert_pretrain.kernels.dropout import drop
from bert_pretrain.kernels.row_attention import RowAttention
from bert_pretrain.kernels.unpadding import Tokens

_GELU_SCALE, _GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


class GraphKernels:
    """See Kernels. bits come from Dropout.bits."""

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def kernel(inputs: tf.Tensor):
            return self._run(_gelu, inputs), lambda upstream: self._run(_gelu_gradient, inputs, upstream)

        return kernel(inputs)

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        if bits is None:
            return inputs

        @tf.custom_gradient
        def kernel(inputs: tf.Tensor):
            dropped = self._run(drop, inputs, bits, rate=rate)
            return dropped, lambda upstream: self._run(drop, upstream, bits, rate=rate)

        return kernel(inputs)

    def layer_norm(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def kernel(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
            output, mean, deviation = self._run(_norm, inputs, gamma, beta)

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                to_inputs, per_gamma = self._run(_norm_gradient, inputs, gamma, mean, deviation, upstream)
                return to_inputs, _over_tokens(per_gamma), _over_tokens(upstream)

            return output, gradient

        return kernel(inputs, gamma, beta)

    def add_and_norm(
        self,
        inputs: tf.Tensor,
        residual: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        bits: Optional[tf.Tensor],
        rate: float,
    ) -> tf.Tensor:
        @tf.custom_gradient
        def kernel(inputs: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
            total, output, mean, deviation = self._run(_add_and_norm, inputs, residual, gamma, beta, bits, rate=rate)

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                to_inputs, to_residual, per_gamma = self._run(
                    _add_and_norm_gradient, total, gamma, mean, deviation, upstream, bits, rate=rate
                )
                return to_inputs, to_residual, _over_tokens(per_gamma), _over_tokens(upstream)

            return output, gradient

        return kernel(inputs, residual, gamma, beta)

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        return RowAttention(self._run, example_ids, tokens, num_heads, rate)

    def _run(self, function: Callable, *tensors: Optional[tf.Tensor], **numbers: float):
        """function(*tensors, **numbers), compiled where these kernels are; numbers become part of the program."""
        if not self._compiled:
            return function(*tensors, **numbers)
        specs = tuple(tensor if tensor is None else tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors)
        with tf.name_scope(function.__name__.strip("_")):  # what a profile shows
            given = (tensor for tensor in tensors if tensor is not None)
            return _compiled(function, specs, tuple(numbers.items()))(*given)


@functools.cache
def _compiled(function: Callable, specs: tuple, numbers: tuple) -> Callable:
    """One program for all layers. tf.function by itself would make another for each call inside a gradient."""

    def program(*given: tf.Tensor):
        rest = iter(given)
        return function(*(None if spec is None else next(rest) for spec in specs), **dict(numbers))

    program.__name__ = function.__name__
    traced = tf.function(program, jit_compile=True, autograph=False)
    return traced.get_concrete_function(*(spec for spec in specs if spec is not None))


def _gelu(inputs: tf.Tensor) -> tf.Tensor:
    x = tf.cast(inputs, tf.float32)
    inner = _GELU_SCALE * x * (1.0 + _GELU_CUBIC * x * x)
    return tf.cast(0.5 * x * (1.0 + tf.tanh(inner)), inputs.dtype)


def _gelu_gradient(inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    x, square = tf.cast(inputs, tf.float32), tf.square(tf.cast(inputs, tf.float32))
    tanh = tf.tanh(_GELU_SCALE * x * (1.0 + _GELU_CUBIC * square))
    inner_slope = _GELU_SCALE * (1.0 + 3.0 * _GELU_CUBIC * square)
    slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tf.square(tanh)) * inner_slope
    return tf.cast(tf.cast(upstream, tf.float32) * slope, inputs.dtype)


def _norm(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The output, and for the gradient mean and inverse deviation, each [T, 1]."""
    x = tf.cast(inputs, tf.float32)
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    centered = x - mean
    deviation = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    return tf.cast(centered * deviation * gamma + beta, inputs.dtype), mean, deviation


def _norm_gradient(
    inputs: tf.Tensor, gamma: tf.Tensor, mean: tf.Tensor, deviation: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """To inputs, and each token's part of that to gamma [T, H]."""
    normal = (tf.cast(inputs, tf.float32) - mean) * deviation
    upstream = tf.cast(upstream, tf.float32)
    to_normal = upstream * gamma
    along = tf.reduce_mean(to_normal * normal, axis=-1, keepdims=True)
    to_inputs = deviation * (to_normal - tf.reduce_mean(to_normal, axis=-1, keepdims=True) - normal * along)
    return tf.cast(to_inputs, inputs.dtype), upstream * normal


def _over_tokens(values: tf.Tensor) -> tf.Tensor:
    """[T, H] -> [H]. Never compiled: XLA adds up on one thread."""
    return tf.reduce_sum(tf.cast(values, tf.float32), axis=0)


def _add_and_norm(inputs, residual, gamma, beta, bits, *, rate: float):
    """The sum, which the gradient needs, and what _norm makes of it before it is rounded to the data's dtype."""
    dropped = inputs if bits is None else drop(inputs, bits, rate)
    total = tf.cast(residual, tf.float32) + tf.cast(dropped, tf.float32)
    output, mean, deviation = _norm(total, gamma, beta)
    return tf.cast(total, inputs.dtype), tf.cast(output, inputs.dtype), mean, deviation


def _add_and_norm_gradient(total, gamma, mean, deviation, upstream, bits, *, rate: float):
    """To inputs and residual, and each token's part of that to gamma."""
    to_total, per_gamma = _norm_gradient(total, gamma, mean, deviation, upstream)
    return to_total if bits is None else drop(to_total, bits, rate), to_total, per_gamma
