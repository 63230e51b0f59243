"""The optimizers by the names that --optimizer_type takes (settings.py lists the same)."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.adamw import AdamW, CorrectedAdamW
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.optimizer import Optimizer, SquareSums
from bert_pretrain.optim.settings import OptimConfig

OPTIMIZERS: dict[str, type[Optimizer]] = {"lamb": Lamb, "adam": AdamW, "adamw": CorrectedAdamW}


def make_optimizer(
    config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend, square_sums: SquareSums
) -> Optimizer:
    """Returns the optimizer that --optimizer_type names; its variables are created in the default graph."""
    return OPTIMIZERS[config.optimizer_type](config, weights, backend, square_sums)


def is_slot(variable: str) -> bool:
    """True for the name of a variable that one of the optimizers keeps for a weight."""
    return any(variable.endswith(f"/{slot}") for optimizer in OPTIMIZERS.values() for slot in optimizer.SLOTS)
