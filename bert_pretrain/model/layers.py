"""The pieces that the encoder and the heads are made of.

Tensors are flat over tokens, [T, H]: a matrix product over two dimensions is the fastest one there is. Weights
arrive as a mapping from variable name to float32 tensor and are cast to the dtype of the data at use; layer norm
and softmax are computed in float32 whatever that dtype is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

LAYER_NORM_EPSILON = 1e-12  # of the published checkpoints (facts 3.5)

Weights = Mapping[str, tf.Tensor]


def dense(weights: Weights, name: str, inputs: tf.Tensor) -> tf.Tensor:
    """inputs [T, I] -> [T, O], with the variables name/kernel [I, O] and name/bias [O]."""
    kernel = tf.cast(weights[f"{name}/kernel"], inputs.dtype)
    bias = tf.cast(weights[f"{name}/bias"], inputs.dtype)
    return tf.nn.bias_add(tf.matmul(inputs, kernel), bias)


def layer_norm(weights: Weights, name: str, inputs: tf.Tensor) -> tf.Tensor:
    """inputs [T, H] -> [T, H] with mean 0 and variance 1 along H, then times name/gamma plus name/beta."""
    values = tf.cast(inputs, tf.float32)
    mean = tf.reduce_mean(values, axis=-1, keepdims=True)  # [T, 1]
    centered = values - mean
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)  # [T, 1]
    normal = centered * tf.math.rsqrt(variance + LAYER_NORM_EPSILON)
    return tf.cast(normal * weights[f"{name}/gamma"] + weights[f"{name}/beta"], inputs.dtype)


def gelu(inputs: tf.Tensor) -> tf.Tensor:
    """The tanh form of GELU (Hendrycks & Gimpel 2016), elementwise."""
    inner = math.sqrt(2.0 / math.pi) * (inputs + 0.044715 * tf.pow(inputs, 3))
    return inputs * (0.5 * (1.0 + tf.tanh(inner)))
