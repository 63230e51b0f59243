"""LAMB (You et al. 2019) as MLPerf's reference has it (facts 3.2, first column)."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native_update import in_place
from bert_pretrain.kernels.xla import runner
from bert_pretrain.optim.weight_decay import is_exempt


class Lamb:
    """Bias-corrected moments, epsilon outside the root, decay inside the trust ratio.

    Slots carry the names of MLPerf's checkpoints: `<variable>/LAMB` is the first moment, `<variable>/LAMB_1` the
    second, and `beta1_power`, `beta2_power` are the betas to the power of the next update's number.
    """

    def __init__(
        self, config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend = Backend.PLAIN
    ) -> None:
        self._backend = backend
        self._run = runner(compiled=backend is Backend.XLA)
        self._config = config
        self._numbers = {"beta_1": config.lamb_beta_1, "beta_2": config.lamb_beta_2, "epsilon": config.epsilon}
        self._weights = weights
        self._first = {name: _slot(f"{name}/LAMB", weight.shape) for name, weight in weights.items()}
        self._second = {name: _slot(f"{name}/LAMB_1", weight.shape) for name, weight in weights.items()}
        self._beta_1_power = _scalar("beta1_power", config.lamb_beta_1)
        self._beta_2_power = _scalar("beta2_power", config.lamb_beta_2)

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """One update of every variable from gradient * gradient_scale; the scale folds unscaling and clipping in."""
        corrections = tf.stack([1.0 - self._beta_1_power, 1.0 - self._beta_2_power])
        done: list[tf.Operation] = []
        for name, gradient in gradients.items():
            # One variable after the other: side by side, all their new moments would be in memory at once.
            with tf.control_dependencies(done):
                done = self._apply_one(name, gradient, gradient_scale, corrections, learning_rate)
        with tf.control_dependencies(done):
            return tf.group(
                self._beta_1_power.assign(self._beta_1_power * self._config.lamb_beta_1),
                self._beta_2_power.assign(self._beta_2_power * self._config.lamb_beta_2),
            )

    def _apply_one(
        self,
        name: str,
        gradient: tf.Tensor,
        gradient_scale: tf.Tensor,
        corrections: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> list[tf.Operation]:
        variables = (self._weights[name], self._first[name], self._second[name])
        decay = 0.0 if is_exempt(name) else self._config.lamb_weight_decay_rate
        if self._backend is Backend.NATIVE:
            extra = {"corrections": corrections, "adapts": not is_exempt(name)}
            rates = (gradient_scale, learning_rate)
            return [in_place("bert_pretrain_lamb", variables, gradient, *rates, **self._numbers, decay=decay, **extra)]
        weight, first, second = (variable.read_value() for variable in variables)
        first, second, direction = self._run(
            _direction, weight, first, second, gradient, gradient_scale, corrections, **self._numbers, decay=decay
        )
        rate = learning_rate if is_exempt(name) else learning_rate * _trust_ratio(weight, direction)
        moved = self._run(_move, weight, direction, rate)
        return [variable.assign(value) for variable, value in zip(variables, (moved, first, second))]


def _direction(
    weight: tf.Tensor,
    first: tf.Tensor,
    second: tf.Tensor,
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    corrections: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The new moments, and where the weight is to go before the trust ratio."""
    gradient = gradient * gradient_scale
    first = beta_1 * first + (1.0 - beta_1) * gradient
    second = beta_2 * second + (1.0 - beta_2) * tf.square(gradient)
    direction = first / corrections[0] / (tf.sqrt(second / corrections[1]) + epsilon)
    return first, second, direction + decay * weight if decay else direction


def _trust_ratio(weight: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    """|weight| / |direction|, or 1 where either is zero.

    Not compiled with the rest: XLA adds up a sum on one thread and one number at a time, l2_loss on all.
    """
    weight_square, direction_square = tf.nn.l2_loss(weight), tf.nn.l2_loss(direction)
    usable = tf.logical_and(weight_square > 0.0, direction_square > 0.0)
    return tf.where(usable, tf.sqrt(weight_square / direction_square), 1.0)


def _move(weight: tf.Tensor, direction: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    return weight - rate * direction


def _slot(name: str, shape: tf.TensorShape) -> tf.Variable:
    return tf.compat.v1.get_variable(
        name, shape, tf.float32, tf.compat.v1.zeros_initializer(), trainable=False, use_resource=True
    )


def _scalar(name: str, value: float) -> tf.Variable:
    return tf.compat.v1.get_variable(
        name, [], tf.float32, tf.compat.v1.constant_initializer(value), trainable=False, use_resource=True
    )
