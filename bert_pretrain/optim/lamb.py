"""LAMB (You et al. 2019) as MLPerf's reference has it (facts 3.2, first column)."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.optim.decay import is_exempt


class Lamb:
    """Bias-corrected moments, epsilon outside the root, decay inside the trust ratio.

    Slots carry the names of MLPerf's checkpoints: `<variable>/LAMB` is the first moment, `<variable>/LAMB_1` the
    second, and `beta1_power`, `beta2_power` are the betas to the power of the next update's number.
    """

    def __init__(self, config: OptimConfig, weights: Mapping[str, tf.Variable]) -> None:
        self._config = config
        self._weights = weights
        self._first = {name: _slot(f"{name}/LAMB", weight.shape) for name, weight in weights.items()}
        self._second = {name: _slot(f"{name}/LAMB_1", weight.shape) for name, weight in weights.items()}
        self._beta_1_power = _scalar("beta1_power", config.lamb_beta_1)
        self._beta_2_power = _scalar("beta2_power", config.lamb_beta_2)

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """One update of every variable from gradient * gradient_scale; the scale folds unscaling and clipping in."""
        corrections = 1.0 - self._beta_1_power.read_value(), 1.0 - self._beta_2_power.read_value()
        assigned = []
        for name, weight in self._weights.items():
            first, second = self._first[name], self._second[name]
            values = self._updated(
                weight.read_value(),
                first.read_value(),
                second.read_value(),
                gradients[name] * gradient_scale,
                learning_rate,
                corrections,
                is_exempt(name),
            )
            assigned += [variable.assign(value) for variable, value in zip((weight, first, second), values)]
        with tf.control_dependencies(assigned):
            return tf.group(
                self._beta_1_power.assign(self._beta_1_power * self._config.lamb_beta_1),
                self._beta_2_power.assign(self._beta_2_power * self._config.lamb_beta_2),
            )

    def _updated(
        self,
        weight: tf.Tensor,
        first: tf.Tensor,
        second: tf.Tensor,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
        corrections: tuple[tf.Tensor, tf.Tensor],
        exempt: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        beta_1, beta_2 = self._config.lamb_beta_1, self._config.lamb_beta_2
        first = beta_1 * first + (1.0 - beta_1) * gradient
        second = beta_2 * second + (1.0 - beta_2) * tf.square(gradient)
        direction = first / corrections[0] / (tf.sqrt(second / corrections[1]) + self._config.epsilon)
        if exempt:
            return weight - learning_rate * direction, first, second
        direction += self._config.lamb_weight_decay_rate * weight
        rate = learning_rate * _trust_ratio(tf.norm(weight), tf.norm(direction))
        return weight - rate * direction, first, second


def _trust_ratio(weight_norm: tf.Tensor, direction_norm: tf.Tensor) -> tf.Tensor:
    usable = tf.logical_and(weight_norm > 0.0, direction_norm > 0.0)
    return tf.where(usable, weight_norm / direction_norm, 1.0)


def _slot(name: str, shape: tf.TensorShape) -> tf.Variable:
    return tf.compat.v1.get_variable(
        name, shape, tf.float32, tf.compat.v1.zeros_initializer(), trainable=False, use_resource=True
    )


def _scalar(name: str, value: float) -> tf.Variable:
    return tf.compat.v1.get_variable(
        name, [], tf.float32, tf.compat.v1.constant_initializer(value), trainable=False, use_resource=True
    )
