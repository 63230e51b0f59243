"""The variables that optimizers and loss scale add to the network's, and which weights decay leaves alone."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec


def create_slots(weights: Mapping[str, tf.Variable], suffix: str) -> dict[str, tf.Variable]:
    """Creates a variable of zeros, `<weight>/<suffix>`, for each weight; returns them by weight."""
    specs = {f"{name}/{suffix}": Spec(tuple(weight.shape.as_list())) for name, weight in weights.items()}
    return dict(zip(weights, graph_variables.create(specs).values()))


def is_exempt(name: str) -> bool:
    """True for the layer norms and biases, which have neither weight decay nor LAMB's trust ratio.

    The patterns are those of exclude_from_weight_decay in google-research/bert optimization.py. "bias" also matches
    the output_bias of both heads.
    """
    return any(part in name for part in ("LayerNorm", "layer_norm", "bias"))
