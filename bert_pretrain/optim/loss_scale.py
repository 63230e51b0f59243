"""The loss scale of float16 training: a small state machine in three variables.

Gradients of a float16 network underflow, so the loss is multiplied by a scale before differentiation and the
gradient divided by it afterwards. A non-finite gradient means that the scale was too large: that update is skipped
and the scale halved. After a thousand good updates in a row it is doubled (facts 3.5).
"""

from __future__ import annotations

import tensorflow as tf

_GROWTH_INTERVAL = 1000  # updates
_FACTOR = 2.0


class LossScale:
    """`value` multiplies the loss; `skipped_updates` counts updates that read their data but moved nothing."""

    def __init__(self, initial: float, dynamic: bool) -> None:
        """Without dynamic the scale is 1 for ever, as float32 needs."""
        self._dynamic = dynamic
        self.value = _variable("loss_scale", initial if dynamic else 1.0, tf.float32)
        self._good_updates = _variable("loss_scale/good_updates", 0, tf.int64)
        self.skipped_updates = _variable("loss_scale/skipped_updates", 0, tf.int64)

    def after_good_update(self) -> tf.Operation:
        """Counts a finite update and doubles the scale when its time has come."""
        if not self._dynamic:
            return tf.no_op()
        good = self._good_updates + 1
        grow = good >= _GROWTH_INTERVAL
        return tf.group(
            self.value.assign(tf.where(grow, self.value * _FACTOR, self.value)),
            self._good_updates.assign(tf.where(grow, tf.zeros_like(good), good)),
        )

    def after_bad_update(self) -> tf.Operation:
        """Counts a skipped update and halves the scale; at 1, halving is over and training must stop."""
        return tf.group(
            self.skipped_updates.assign_add(1),
            self._good_updates.assign(tf.zeros_like(self._good_updates)),
            self.value.assign(tf.maximum(self.value / _FACTOR, 1.0)),
        )


def _variable(name: str, value: float, dtype: tf.DType) -> tf.Variable:
    return tf.compat.v1.get_variable(
        name, [], dtype, tf.compat.v1.constant_initializer(value), trainable=False, use_resource=True
    )
