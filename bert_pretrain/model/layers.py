"""Layers with weights. Activations are matrices, [T, H], so that each layer is a single matrix product.

weights maps variable names to float32 tensors, which are cast where they are used.

Letters: T tokens, I inputs, O outputs, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Mapping, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.kernels.protocol import Kernels
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient

Weights = Mapping[str, tf.Tensor]


class Precision(NamedTuple):
    """The dtypes of a forward pass. Products accumulate in float32."""

    products: tf.DType = tf.float32  # operands and results of the encoder's linear layers
    activations: tf.DType = tf.float32  # what is between them, and all of the heads


FLOAT32 = Precision()


def dense(weights: Weights, name: str, inputs: tf.Tensor, products: Optional[tf.DType] = None) -> tf.Tensor:
    """inputs [T, I] -> [T, O], with the variables name/kernel [I, O] and name/bias [O].

    products: the dtype of the product and its operands; None: that of inputs.
    """
    return fused_dense(weights, [name], inputs, products)


def fused_dense(
    weights: Weights, names: Sequence[str], inputs: tf.Tensor, products: Optional[tf.DType] = None
) -> tf.Tensor:
    """inputs [T, I] -> [T, O1 + O2 + ...]: the outputs of dense for all names side by side, as one product."""
    dtype = products or inputs.dtype
    kernel = tf.concat([tf.cast(weights[f"{name}/kernel"], dtype) for name in names], axis=1)
    bias = tf.concat([weights[f"{name}/bias"] for name in names], axis=0)
    outputs = tf.cast(tf.matmul(tf.cast(inputs, dtype), kernel), inputs.dtype)
    return _add_bias(outputs, bias)


def _add_bias(outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """outputs [T, O] + bias [O] float32. The bias's gradient is summed in float32, whatever the dtype of outputs.

    GPUs would add up to 264 partial sums in bfloat16, in an order that differs from run to run.
    """
    if outputs.dtype == tf.float32:
        return tf.nn.bias_add(outputs, bias)

    @custom_gradient
    def kernel(outputs: tf.Tensor, bias: tf.Tensor) -> TensorAndGradient:
        def gradient(grad_outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return grad_outputs, tf.reduce_sum(tf.cast(grad_outputs, tf.float32), axis=0)

        return tf.nn.bias_add(outputs, tf.cast(bias, outputs.dtype)), gradient

    return kernel(outputs, bias)


def layer_norm(weights: Weights, name: str, inputs: tf.Tensor, kernels: Kernels) -> tf.Tensor:
    """inputs [T, H] -> [T, H], normalized along H, with the variables name/gamma [H] and name/beta [H]."""
    return kernels.layer_norm(inputs, weights[f"{name}/gamma"], weights[f"{name}/beta"])
