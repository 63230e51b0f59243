"""Trading time for memory: a layer that keeps its input only and is run again in the backward pass.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; a third more work for the layers.
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf

from bert_pretrain.model.layers import Weights


def recomputed(layer: Callable[[Weights, tf.Tensor], tf.Tensor], weights: Weights, hidden: tf.Tensor) -> tf.Tensor:
    """layer(weights, hidden), whose intermediates live only while they are computed."""
    names = list(weights)

    @tf.custom_gradient
    def kernel(hidden: tf.Tensor, *values: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            # Without the wait, TensorFlow would find that the same work was done before and keep its results.
            with tf.control_dependencies([upstream]):
                again = [tf.identity(value) for value in (hidden, *values)]
            output = layer(dict(zip(names, again[1:])), again[0])
            return tf.gradients(output, again, upstream)

        return layer(dict(zip(names, values)), hidden), gradient

    return kernel(hidden, *weights.values())
