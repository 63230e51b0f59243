"""What both optimizers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.adamw import Adamw
from bert_pretrain.optim.lamb import Lamb


class Optimizer(Protocol):
    """What Lamb and Adamw have in common."""

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """One update of every variable from gradient * gradient_scale."""


def make_optimizer(config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend) -> Optimizer:
    """The optimizer that --optimizer_type names, with its slots in the default graph."""
    return {"lamb": Lamb, "adam": Adamw}[config.optimizer_type](config, weights, backend)
