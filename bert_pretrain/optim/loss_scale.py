"""The loss scale of float16 training (Micikevicius et al. 2017, arXiv:1710.03740, section 3.2).

Gradients of a float16 network underflow, so the loss is multiplied by a scale before differentiation and the gradient
is divided by it afterwards. A gradient that is not finite means that the scale was too large: the update is skipped and
the scale is halved. After 1000 finite updates in a row it is doubled, as in NVIDIA/DeepLearningExamples
TensorFlow/LanguageModeling/BERT/optimization.py.
"""

from __future__ import annotations

import tensorflow as tf

from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec

_GROWTH_INTERVAL = 1000  # updates
_FACTOR = 2.0


class LossScale:
    """The factor of the loss; `skipped_updates` counts updates that read their data but changed no weight."""

    def __init__(self, initial: float, dynamic: bool) -> None:
        """Creates the variables in the default graph. If not dynamic, the scale is 1, whatever a checkpoint holds."""
        self._dynamic = dynamic
        specs = {
            "loss_scale": Spec(initial=initial if dynamic else 1.0),
            "loss_scale/good_updates": Spec(dtype=tf.int64),
            "loss_scale/skipped_updates": Spec(dtype=tf.int64),
        }
        self.value, self._good_updates, self.skipped_updates = graph_variables.create_in_graph(specs).values()

    def read(self) -> tf.Tensor:
        """The scale, a float32 scalar."""
        return self.value.read_value() if self._dynamic else tf.constant(1.0)

    def after_good_update(self) -> tf.Operation:
        """Counts an update with a finite gradient; doubles the scale after enough of them in a row."""
        if not self._dynamic:
            return tf.no_op()
        good = self._good_updates + 1
        grow = good >= _GROWTH_INTERVAL
        return tf.group(
            self.value.assign(tf.where(grow, self.value * _FACTOR, self.value)),
            self._good_updates.assign(tf.where(grow, tf.zeros_like(good), good)),
        )

    def after_bad_update(self) -> tf.Operation:
        """Counts a skipped update and halves the scale, down to 1; below that, training has to stop."""
        skipped = self.skipped_updates.assign_add(1)
        if not self._dynamic:
            return tf.group(skipped)
        return tf.group(
            skipped,
            self._good_updates.assign(tf.zeros_like(self._good_updates)),
            self.value.assign(tf.maximum(self.value / _FACTOR, 1.0)),
        )
