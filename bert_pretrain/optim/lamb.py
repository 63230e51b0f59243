"""LAMB (You et al. 2019, arXiv:1904.00962, algorithm 2) with the choices of MLPerf's reference implementation.

mlcommons/training language_model/tensorflow/bert/lamb_optimizer_v1.py: m and v are corrected for bias, epsilon is added
to the root, weight decay is part of the direction that the trust ratio scales, and layer norms and biases have neither
decay nor trust ratio.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native_kernels import update_in_place
from bert_pretrain.optim.optimizer import Optimizer, SquareSums, is_exempt, square_sums
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec


class Lamb(Optimizer):
    """See Optimizer.

    Variables are named as in MLPerf's checkpoints: `<weight>/LAMB` is m, `<weight>/LAMB_1` is v, and `beta1_power` and
    `beta2_power` are the betas to the power t, the 1-based number of the next update.
    """

    SLOTS = ("LAMB", "LAMB_1")

    def __init__(
        self,
        config: OptimConfig,
        weights: Mapping[str, tf.Variable],
        backend: Backend = Backend.PLAIN,
        square_sums: SquareSums = square_sums,
    ) -> None:
        super().__init__(config, weights, backend, square_sums)
        powers = {"beta1_power": Spec(initial=config.beta_1), "beta2_power": Spec(initial=config.beta_2)}
        self._beta_1_power, self._beta_2_power = graph_variables.create_in_graph(powers).values()

    def _update_all(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        corrections = tf.stack([1.0 - self._beta_1_power, 1.0 - self._beta_2_power])
        done: list[tf.Operation] = []
        for name, gradient in gradients.items():
            # One variable after the other: in parallel, all their new moments would be in memory at once.
            with tf.control_dependencies(done):
                done = self._update(name, gradient, gradient_scale, corrections, learning_rate)
        with tf.control_dependencies(done):
            return tf.group(
                self._beta_1_power.assign(self._beta_1_power * self._config.beta_1),
                self._beta_2_power.assign(self._beta_2_power * self._config.beta_2),
            )

    def _update(
        self,
        name: str,
        gradient: tf.Tensor,
        gradient_scale: tf.Tensor,
        corrections: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> list[tf.Operation]:
        """The operations that update one weight and its moments."""
        variables, constants, has_ratio = self._variables_of(name), self._constants_of(name), self._has_ratio(name)
        if self._backend is Backend.NATIVE:
            inputs = (variables, gradient, gradient_scale, learning_rate)
            more = {"corrections": corrections, "use_trust_ratio": has_ratio}
            return [update_in_place("bert_pretrain_lamb", *inputs, **constants, **more)]
        weight, m, v = (variable.read_value() for variable in variables)
        m, v, direction = self._run(_direction, weight, m, v, gradient, gradient_scale, corrections, **constants)
        rate = learning_rate * self._trust_ratio(weight, direction) if has_ratio else learning_rate
        weight = self._run(_step, weight, direction, rate)
        return [variable.assign(value) for variable, value in zip(variables, (weight, m, v))]

    def _has_ratio(self, name: str) -> bool:
        """Is a weight's rate multiplied by its trust ratio?"""
        return not is_exempt(name)

    def _trust_ratio(self, weight: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
        """|weight| / |direction|, or 1 if either is zero.

        Never compiled: XLA sums on one thread, one number at a time, TensorFlow's operations on all threads.
        """
        weight_square, direction_square = tf.unstack(self._square_sums([weight, direction]), num=2)
        usable = tf.logical_and(weight_square > 0.0, direction_square > 0.0)
        return tf.where(usable, tf.sqrt(weight_square / direction_square), 1.0)


def _direction(
    weight: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    corrections: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the new m and v and the direction, r_t + lambda x_t in algorithm 2."""
    gradient = gradient * gradient_scale
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    direction = m / corrections[0] / (tf.sqrt(v / corrections[1]) + epsilon)
    return m, v, direction + decay * weight if decay else direction


def _step(weight: tf.Tensor, direction: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    return weight - rate * direction
