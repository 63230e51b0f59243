"""Trading time for memory: a layer keeps only its input, and the backward pass runs it again.

Chen et al. 2016, arXiv:1604.06174. It adds about a third to the work of the layers.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from bert_pretrain.model.layers import Weights


def run_with_recompute(
    layer: Callable[[Weights, tf.Tensor], tf.Tensor], weights: Weights, hidden: tf.Tensor
) -> tf.Tensor:
    """Returns layer(weights, hidden) and keeps none of its intermediate results for the backward pass."""
    names = list(weights)

    @tf.custom_gradient
    def kernel(hidden: tf.Tensor, *values: tf.Tensor):
        def gradient(grad_output: tf.Tensor) -> list[tf.Tensor]:
            # Without this dependency, TensorFlow would merge the second run with the first and keep its results.
            with tf.control_dependencies([grad_output]):
                inputs = [tf.identity(value) for value in (hidden, *values)]
            output = layer(dict(zip(names, inputs[1:])), inputs[0])
            return tf.gradients(output, inputs, grad_output)

        return layer(dict(zip(names, values)), hidden), gradient

    return kernel(hidden, *weights.values())
