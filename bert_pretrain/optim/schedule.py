"""The learning rate of each update.

The polynomial schedule is that of create_optimizer in MLPerf's reference implementation, mlcommons/training
language_model/tensorflow/bert/optimization.py.
"""

from __future__ import annotations

import math
from typing import Any, Union, overload

import tensorflow as tf

from bert_pretrain.optim.settings import OptimConfig


def effective_peak(config: OptimConfig, num_ranks: int, horovod: bool) -> float:
    """The peak rate after --lr_scaling. DeepSparkHub's recipes multiply the base rate by the ranks under Horovod."""
    return config.learning_rate * (num_ranks if horovod and config.lr_scaling == "linear" else 1)


@overload
def learning_rate(step: float, config: OptimConfig, peak: float) -> float: ...
@overload
def learning_rate(step: tf.Tensor, config: OptimConfig, peak: float) -> tf.Tensor: ...


def learning_rate(step: Union[float, tf.Tensor], config: OptimConfig, peak: float) -> Union[float, tf.Tensor]:
    """The rate of the update with the 0-based index step: a float for a Python number, else a float32 scalar.

    With --lr_schedule=polynomial, decay from peak at step 0 to 0 at num_train_steps, with or without warm-up:
        peak * (1 - min(step, num_train_steps) / num_train_steps) ** poly_power
    With linear and cosine, decay from peak at the end of the warm-up, w, to 0 at num_train_steps; x is the rest:
        x = (num_train_steps - min(step, num_train_steps)) / (num_train_steps - w)
        peak * x, and peak * (1 - cos(pi * x)) / 2 (Loshchilov & Hutter 2016, arXiv:1608.03983, without restarts)
    With constant, peak until the last num_decay_steps, d, which fall linearly to 0:
        peak * min(1, (num_train_steps - min(step, num_train_steps)) / d)
    During warm-up, while step - start_warmup_step < num_warmup_steps, linear growth takes its place:
        peak * (step - start_warmup_step) / num_warmup_steps
    """
    if not isinstance(step, tf.Tensor):
        return _learning_rate(float(step), config, peak, _Floats)
    return _learning_rate(tf.cast(step, tf.float32), config, peak, tf)


class _Floats:
    """The functions of TensorFlow that the schedule uses, for Python's numbers."""

    minimum, pow, cos = min, pow, math.cos

    @staticmethod
    def where(condition: bool, one: float, other: float) -> float:
        return one if condition else other


def _learning_rate(step: Any, config: OptimConfig, peak: float, functions: Any) -> Any:
    """functions: minimum, pow, cos and where for numbers of the type of step."""
    last, warmup = float(config.num_train_steps), config.num_warmup_steps
    rest = last - functions.minimum(step, last)  # updates
    end_of_warmup = float(warmup + config.start_warmup_step)
    if config.lr_schedule == "polynomial":
        decayed = peak * functions.pow(rest / last, config.poly_power)
    elif config.lr_schedule == "constant":
        decayed = peak * functions.minimum(rest / max(1.0, config.num_decay_steps), 1.0)
    else:
        share = rest / max(1.0, last - max(0.0, end_of_warmup))
        decayed = peak * (share if config.lr_schedule == "linear" else (1.0 - functions.cos(math.pi * share)) / 2.0)
    if warmup == 0:
        return decayed
    since_start = step - float(config.start_warmup_step)
    return functions.where(since_start < warmup, peak * since_start / warmup, decayed)
