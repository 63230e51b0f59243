"""What differs between TensorFlow 2.6 and the newest. No other module asks for a version."""

from __future__ import annotations

from types import ModuleType
from typing import Optional

import tensorflow as tf


def tf_estimator() -> Optional[ModuleType]:
    """tf.estimator, or None from TensorFlow 2.16 on, which removed it."""
    return getattr(tf, "estimator", None)


def disable_autotune(options: tf.data.Options) -> None:
    """Keeps tf.data from changing the number of parallel calls. The option moved in TensorFlow 2.7."""
    if hasattr(options, "autotune"):
        options.autotune.enabled = False
    else:
        options.experimental_optimization.autotune = False
