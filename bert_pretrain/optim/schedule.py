"""The learning rate of an update."""

from __future__ import annotations

from typing import Union

import tensorflow as tf

from bert_pretrain.config.training import OptimConfig

Number = Union[int, float, tf.Tensor]


def effective_peak(config: OptimConfig, num_ranks: int, horovod: bool) -> float:
    """The peak rate after --lr_scaling: the seed's recipes count on base x ranks under Horovod."""
    return config.learning_rate * (num_ranks if horovod and config.lr_scaling == "linear" else 1)


def learning_rate(step: Number, config: OptimConfig, peak: float) -> Number:
    """Rate of the update with the 0-based index step (facts 3.3, MLPerf's reference).

    Polynomial decay from peak at step 0 to 0 at num_train_steps. While step - start_warmup_step is below
    num_warmup_steps, a line from 0 at start_warmup_step towards peak takes its place; the decay is measured from
    step 0 all the same. A Python step gives a float, a tensor a float32 scalar.
    """
    if not isinstance(step, tf.Tensor):
        return _learning_rate(float(step), config, peak, minimum=min, where=lambda c, a, b: a if c else b)
    return _learning_rate(tf.cast(step, tf.float32), config, peak, minimum=tf.minimum, where=tf.where)


def _learning_rate(step, config: OptimConfig, peak: float, minimum, where):
    last = float(config.num_train_steps)
    decayed = peak * ((last - minimum(step, last)) / last) ** config.poly_power
    if config.num_warmup_steps == 0:
        return decayed
    since_start = step - float(config.start_warmup_step)
    warming = peak * since_start / config.num_warmup_steps
    return where(since_start < config.num_warmup_steps, warming, decayed)
