"""The variables that optimizers and loss scale add to the network's, and which weights decay leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def create_variable(
    name: str, shape: Sequence[int] = (), initial: float = 0.0, dtype: tf.DType = tf.float32
) -> tf.Variable:
    """Creates a variable in the default graph that is not trained; all elements start at `initial`."""
    zeros, constant = tf.compat.v1.zeros_initializer, tf.compat.v1.constant_initializer
    return tf.compat.v1.get_variable(
        name, shape, dtype, constant(initial) if initial else zeros(), trainable=False, use_resource=True
    )


def is_exempt(name: str) -> bool:
    """True for the layer norms and biases, which have neither weight decay nor LAMB's trust ratio.

    The patterns are those of exclude_from_weight_decay in google-research/bert optimization.py. "bias" also matches
    the output_bias of both heads.
    """
    return any(part in name for part in ("LayerNorm", "layer_norm", "bias"))
