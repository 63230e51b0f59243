"""The learning rate of each update, as create_optimizer in MLPerf's reference implementation computes it.

mlcommons/training language_model/tensorflow/bert/optimization.py.
"""

from __future__ import annotations

from typing import Callable, TypeVar, Union, overload

import tensorflow as tf

from bert_pretrain.optim.settings import OptimConfig

Number = TypeVar("Number", float, tf.Tensor)


def effective_peak(config: OptimConfig, num_ranks: int, horovod: bool) -> float:
    """The peak rate after --lr_scaling. DeepSparkHub's recipes multiply the base rate by the ranks under Horovod."""
    return config.learning_rate * (num_ranks if horovod and config.lr_scaling == "linear" else 1)


@overload
def learning_rate(step: float, config: OptimConfig, peak: float) -> float: ...
@overload
def learning_rate(step: tf.Tensor, config: OptimConfig, peak: float) -> tf.Tensor: ...


def learning_rate(step: Union[float, tf.Tensor], config: OptimConfig, peak: float) -> Union[float, tf.Tensor]:
    """The rate of the update with the 0-based index step: a float for a Python number, else a float32 scalar.

    Polynomial decay from peak at step 0 to 0 at num_train_steps:
        peak * (1 - min(step, num_train_steps) / num_train_steps) ** poly_power
    During warm-up, while step - start_warmup_step < num_warmup_steps, linear growth takes its place:
        peak * (step - start_warmup_step) / num_warmup_steps
    The decay is measured from step 0 with or without warm-up.
    """
    if not isinstance(step, tf.Tensor):
        return _learning_rate(float(step), config, peak, min, pow, where=lambda c, a, b: a if c else b)
    return _learning_rate(tf.cast(step, tf.float32), config, peak, tf.minimum, tf.pow, tf.where)


def _learning_rate(
    step: Number,
    config: OptimConfig,
    peak: float,
    minimum: Callable[[Number, float], Number],
    power: Callable[[Number, float], Number],
    where: Callable[[Union[bool, tf.Tensor], Number, Number], Number],
) -> Number:
    last = float(config.num_train_steps)
    decayed = peak * power((last - minimum(step, last)) / last, config.poly_power)
    if config.num_warmup_steps == 0:
        return decayed
    since_start = step - float(config.start_warmup_step)
    warming_up = peak * since_start / config.num_warmup_steps
    return where(since_start < config.num_warmup_steps, warming_up, decayed)
