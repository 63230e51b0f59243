"""AdamW, decoupled weight decay (Loshchilov & Hutter 2017, arXiv:1711.05101), without and with correction of bias.

Without, it is AdamWeightDecayOptimizer in google-research/bert optimization.py. With it, it is torch.optim.AdamW: m and
v begin at zero, and are divided by 1 - beta^t. Zhang et al. 2020, arXiv:2006.05987, show what the first updates lose
without it.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native_kernels import update_in_place
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.optimizer import Optimizer


class AdamW(Optimizer):
    """Without correction of bias; see Optimizer. Variables are named as in Google's checkpoints."""

    SLOTS = ("adam_m", "adam_v")

    def _update_all(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        updates: list[tf.Operation] = []
        for name, gradient in gradients.items():
            variables, constants = self._variables_of(name), self._constants_of(name)
            inputs = gradient, gradient_scale, learning_rate
            if self._backend is Backend.NATIVE:
                updates.append(update_in_place("bert_pretrain_adamw", variables, *inputs, **constants))
            else:
                values = self._run(_update, *(variable.read_value() for variable in variables), *inputs, **constants)
                updates += [variable.assign(value) for variable, value in zip(variables, values)]
        return tf.group(*updates)


class CorrectedAdamW(Lamb):
    """With correction of bias; see Optimizer: LAMB without trust ratios.

    Variables are named as AdamW's, with LAMB's beta1_power and beta2_power.
    """

    SLOTS = AdamW.SLOTS

    def _has_ratio(self, name: str) -> bool:
        return False


def _update(
    weight: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the new weight, m and v."""
    gradient = gradient * gradient_scale
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    direction = m / (tf.sqrt(v) + epsilon)
    direction = direction + decay * weight if decay else direction
    return weight - learning_rate * direction, m, v
