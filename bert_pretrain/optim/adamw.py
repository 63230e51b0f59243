"""AdamW without bias correction, as in Google's BERT (facts 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.optim.decay import is_exempt


class Adamw:
    """Slots carry the names of Google's checkpoints: `<variable>/adam_m` and `<variable>/adam_v`."""

    def __init__(self, config: OptimConfig, weights: Mapping[str, tf.Variable]) -> None:
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
        beta_1, beta_2 = self._config.lamb_beta_1, self._config.lamb_beta_2
        assigned = []
        for name, weight in self._weights.items():
            gradient = gradients[name] * gradient_scale
            first, second = self._slots[name]
            new_first = beta_1 * first + (1.0 - beta_1) * gradient
            new_second = beta_2 * second + (1.0 - beta_2) * tf.square(gradient)
            direction = new_first / (tf.sqrt(new_second) + self._config.epsilon)
            if not is_exempt(name):
                direction += self._config.lamb_weight_decay_rate * weight
            assigned += [
                weight.assign(weight - learning_rate * direction),
                first.assign(new_first),
                second.assign(new_second),
            ]
        return tf.group(*assigned)
