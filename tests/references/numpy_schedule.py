"""The learning rate of MLPerf's reference implementation, in plain Python.

mlcommons/training language_model/tensorflow/bert/optimization.py, create_optimizer.
"""

from __future__ import annotations


def learning_rate(
    step: int, peak: float, num_train_steps: int, num_warmup_steps: int, start_warmup_step: int, poly_power: float
) -> float:
    """The rate of the update with the 0-based index step, with N train and W warm-up steps.

    During warm-up, while step - start < W: peak * (step - start) / W. Otherwise peak * (1 - min(step, N) / N) ** power.
    """
    if num_warmup_steps > 0 and step - start_warmup_step < num_warmup_steps:
        return peak * (step - start_warmup_step) / num_warmup_steps
    return peak * (1 - min(step, num_train_steps) / num_train_steps) ** poly_power
