"""AdamW without bias correction, as in Google's BERT (facts 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native_update import in_place
from bert_pretrain.kernels.xla import runner
from bert_pretrain.optim.weight_decay import is_exempt


class Adamw:
    """Slots carry the names of Google's checkpoints: `<variable>/adam_m` and `<variable>/adam_v`."""

    def __init__(
        self, config: OptimConfig, weights: Mapping[str, tf.Variable], backend: Backend = Backend.PLAIN
    ) -> None:
        self._backend = backend
        self._run = runner(compiled=backend is Backend.XLA)
        self._config = config
        self._weights = weights
        self._slots = {
            name: tuple(
                tf.compat.v1.get_variable(
                    f"{name}/{slot}",
                    weight.shape,
                    tf.float32,
                    tf.compat.v1.zeros_initializer(),
                    trainable=False,
                    use_resource=True,
                )
                for slot in ("adam_m", "adam_v")
            )
            for name, weight in weights.items()
        }

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """One update of every variable from gradient * gradient_scale; the scale folds unscaling and clipping in."""
        config, done = self._config, []
        for name, weight in self._weights.items():
            variables, given = (weight, *self._slots[name]), (gradients[name], gradient_scale, learning_rate)
            numbers = {
                "beta_1": config.lamb_beta_1,
                "beta_2": config.lamb_beta_2,
                "epsilon": config.epsilon,
                "decay": 0.0 if is_exempt(name) else config.lamb_weight_decay_rate,
            }
            if self._backend is Backend.NATIVE:
                done.append(in_place("bert_pretrain_adamw", variables, *given, **numbers))
            else:
                moved = self._run(_moved, *(variable.read_value() for variable in variables), *given, **numbers)
                done += [variable.assign(value) for variable, value in zip(variables, moved)]
        return tf.group(*done)


def _moved(
    weight: tf.Tensor,
    first: tf.Tensor,
    second: tf.Tensor,
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    decay: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The new weight and moments."""
    gradient = gradient * gradient_scale
    first = beta_1 * first + (1.0 - beta_1) * gradient
    second = beta_2 * second + (1.0 - beta_2) * tf.square(gradient)
    direction = first / (tf.sqrt(second) + epsilon)
    direction = direction + decay * weight if decay else direction
    return weight - learning_rate * direction, first, second
