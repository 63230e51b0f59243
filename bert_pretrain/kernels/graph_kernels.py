"""The kernels as TensorFlow operations with hand-written gradients, compiled by XLA or not.

TensorFlow's automatic gradients of these expressions keep every intermediate result and pass over memory a dozen times.
Here each kernel keeps only what its gradient needs, and XLA compiles forward and backward into one loop each. The
arithmetic is float32 for data of any dtype.
"""

from __future__ import annotations

import math
from typing import Callable, Optional

import tensorflow as tf

from bert_pretrain.config.model import LAYER_NORM_EPSILON
from bert_pretrain.kernels import xla
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import drop_units
from bert_pretrain.kernels.fused import FusedAttention
from bert_pretrain.kernels.row_attention import RowAttention
from bert_pretrain.kernels.unpadding import Tokens, every_slot, find_tokens
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient

_GELU_SCALE, _GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


class GraphKernels:
    """See Kernels."""

    def __init__(self, backend: Backend = Backend.PLAIN) -> None:
        self.is_compiled, self.compiles_layers = backend.is_compiled, backend.compiles_layers
        self._is_fused = backend is Backend.XLA_FUSED
        self._run = xla.function_runner(self.is_compiled)

    def find_tokens(self, example_ids: tf.Tensor) -> Tokens:
        return every_slot(example_ids) if self.is_compiled else find_tokens(example_ids)

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        @custom_gradient
        def kernel(inputs: tf.Tensor) -> TensorAndGradient:
            return self._run(_gelu, inputs), lambda grad_outputs: self._run(_gelu_gradient, inputs, grad_outputs)

        return kernel(inputs)

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        if bits is None:
            return inputs

        @custom_gradient
        def kernel(inputs: tf.Tensor) -> TensorAndGradient:
            outputs = self._run(drop_units, inputs, bits, rate=rate)
            return outputs, lambda grad_outputs: self._run(drop_units, grad_outputs, bits, rate=rate)

        return kernel(inputs)

    def layer_norm(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        @custom_gradient
        def kernel(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> TensorAndGradient:
            outputs, mean, rstd = self._run(_norm, inputs, gamma, beta)

            def gradient(grad_outputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
                grad_inputs, grad_gammas = self._run(_norm_gradient, inputs, gamma, mean, rstd, grad_outputs)
                return grad_inputs, _sum_over_tokens(grad_gammas), _sum_over_tokens(grad_outputs)

            return outputs, gradient

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
        @custom_gradient
        def kernel(inputs: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> TensorAndGradient:
            total, outputs, mean, rstd = self._run(_add_and_norm, inputs, residual, gamma, beta, bits, rate=rate)

            def gradient(grad_outputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
                grad_inputs, grad_residual, grad_gammas = self._run(
                    _add_and_norm_gradient, total, gamma, mean, rstd, grad_outputs, bits, rate=rate
                )
                return grad_inputs, grad_residual, _sum_over_tokens(grad_gammas), _sum_over_tokens(grad_outputs)

            return outputs, gradient

        return kernel(inputs, residual, gamma, beta)

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        if self._is_fused:
            return FusedAttention(self._run, example_ids, num_heads, rate)
        return RowAttention(self._run, example_ids, tokens, num_heads, rate)


def _gelu(inputs: tf.Tensor) -> tf.Tensor:
    x = tf.cast(inputs, tf.float32)
    inner = _GELU_SCALE * x * (1.0 + _GELU_CUBIC * x * x)
    return tf.cast(0.5 * x * (1.0 + tf.tanh(inner)), inputs.dtype)


def _gelu_gradient(inputs: tf.Tensor, grad_outputs: tf.Tensor) -> tf.Tensor:
    x, square = tf.cast(inputs, tf.float32), tf.square(tf.cast(inputs, tf.float32))
    tanh = tf.tanh(_GELU_SCALE * x * (1.0 + _GELU_CUBIC * square))
    inner_slope = _GELU_SCALE * (1.0 + 3.0 * _GELU_CUBIC * square)
    slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tf.square(tanh)) * inner_slope
    return tf.cast(tf.cast(grad_outputs, tf.float32) * slope, inputs.dtype)


def _norm(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the outputs [T, H] and, for the gradient, mean and inverse standard deviation [T, 1] float32."""
    x = tf.cast(inputs, tf.float32)
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    centered = x - mean
    rstd = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    return tf.cast(centered * rstd * gamma + beta, inputs.dtype), mean, rstd


def _norm_gradient(
    inputs: tf.Tensor, gamma: tf.Tensor, mean: tf.Tensor, rstd: tf.Tensor, grad_outputs: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradient of inputs [T, H] and each token's share of that of gamma [T, H]."""
    normalized = (tf.cast(inputs, tf.float32) - mean) * rstd
    grad_outputs = tf.cast(grad_outputs, tf.float32)
    grad_normalized = grad_outputs * gamma
    projection = tf.reduce_mean(grad_normalized * normalized, axis=-1, keepdims=True)
    grad_mean = tf.reduce_mean(grad_normalized, axis=-1, keepdims=True)
    grad_inputs = rstd * (grad_normalized - grad_mean - normalized * projection)
    return tf.cast(grad_inputs, inputs.dtype), grad_outputs * normalized


def _sum_over_tokens(values: tf.Tensor) -> tf.Tensor:
    """[T, H] -> [H] float32. Never compiled: XLA's reductions use one thread."""
    return tf.reduce_sum(tf.cast(values, tf.float32), axis=0)


def _add_and_norm(
    inputs: tf.Tensor,
    residual: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    bits: Optional[tf.Tensor],
    *,
    rate: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the sum, which the gradient needs, and the results of _norm for the sum before it is rounded."""
    dropped = inputs if bits is None else drop_units(inputs, bits, rate)
    total = tf.cast(residual, tf.float32) + tf.cast(dropped, tf.float32)
    outputs, mean, rstd = _norm(total, gamma, beta)
    return tf.cast(total, inputs.dtype), tf.cast(outputs, inputs.dtype), mean, rstd


def _add_and_norm_gradient(
    total: tf.Tensor,
    gamma: tf.Tensor,
    mean: tf.Tensor,
    rstd: tf.Tensor,
    grad_outputs: tf.Tensor,
    bits: Optional[tf.Tensor],
    *,
    rate: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the gradients of inputs and residual [T, H] and each token's share of that of gamma [T, H]."""
    grad_total, grad_gammas = _norm_gradient(total, gamma, mean, rstd, grad_outputs)
    return grad_total if bits is None else drop_units(grad_total, bits, rate), grad_total, grad_gammas
