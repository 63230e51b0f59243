"""The interface of the optimizers, and how to get the one that --optimizer_type names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from bert_pretrain.config.optim import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.adamw import Adamw
from bert_pretrain.optim.lamb import Lamb


class Optimizer(Protocol):
    """What Lamb and Adamw have in common."""

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """Updates every weight once, from gradient * gradient_scale, in which unscaling and clipping are folded.

        gradients: by variable name, float32, dense. learning_rate and gradient_scale: float32 scalars.
        """


def make_optimizer(config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend) -> Optimizer:
    """Returns the optimizer that --optimizer_type names; its variables are created in the default graph."""
    return {"lamb": Lamb, "adam": Adamw}[config.optimizer_type](config, weights, backend)
