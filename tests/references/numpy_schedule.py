"""The learning rate of MLPerf's reference, from its published description."""

from __future__ import annotations


def learning_rate(
    step: int, peak: float, num_train_steps: int, num_warmup_steps: int, start_warmup_step: int, poly_power: float
) -> float:
    """Rate of the update with the 0-based index step.

    Decay: peak * (1 - min(step, N) / N) ** power. Warm-up, if there is one and for as long as
    step - start < W, instead: peak * (step - start) / W.
    """
    if num_warmup_steps > 0 and step - start_warmup_step < num_warmup_steps:
        return peak * (step - start_warmup_step) / num_warmup_steps
    return peak * (1 - min(step, num_train_steps) / num_train_steps) ** poly_power
