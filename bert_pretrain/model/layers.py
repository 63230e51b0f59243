"""Layers with weights. Activations are matrices, [T, H], so that each layer is a single matrix product.

weights maps variable names to float32 tensors, which are cast to the dtype of the activations where they are used.

Letters: T tokens, I inputs, O outputs, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Mapping

import tensorflow as tf

from bert_pretrain.kernels.protocol import Kernels

Weights = Mapping[str, tf.Tensor]


def dense(weights: Weights, name: str, inputs: tf.Tensor) -> tf.Tensor:
    """inputs [T, I] -> [T, O], with the variables name/kernel [I, O] and name/bias [O]."""
    return fused_dense(weights, [name], inputs)


def fused_dense(weights: Weights, names: Sequence[str], inputs: tf.Tensor) -> tf.Tensor:
    """inputs [T, I] -> [T, O1 + O2 + ...]: the outputs of dense for all names side by side, as one product."""
    kernel = tf.concat([weights[f"{name}/kernel"] for name in names], axis=1)
    bias = tf.concat([weights[f"{name}/bias"] for name in names], axis=0)
    return tf.nn.bias_add(tf.matmul(inputs, tf.cast(kernel, inputs.dtype)), tf.cast(bias, inputs.dtype))


def layer_norm(weights: Weights, name: str, inputs: tf.Tensor, kernels: Kernels) -> tf.Tensor:
    """inputs [T, H] -> [T, H], normalized along H, with the variables name/gamma [H] and name/beta [H]."""
    return kernels.layer_norm(inputs, weights[f"{name}/gamma"], weights[f"{name}/beta"])
