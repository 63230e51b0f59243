"""An optimizer's update of one variable and its moments, in place, as one C++ operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bert_pretrain.kernels import native


def update_in_place(
    operation: str,
    variables: Sequence[tf.Variable],
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    **more: Any,
) -> tf.Operation:
    """Runs bert_pretrain_lamb or bert_pretrain_adamw on variables: the weight and its moments m and v.

    more: the operation's further inputs and attributes.
    """
    weight, m, v = (variable.handle for variable in variables)
    return getattr(native.library(), operation)(
        weight=weight,
        m=m,
        v=v,
        gradient=gradient,
        gradient_scale=gradient_scale,
        learning_rate=learning_rate,
        beta_1=beta_1,
        one_minus_beta_1=1.0 - beta_1,  # in float64; computed in float32 it would be off in the fifth digit
        beta_2=beta_2,
        one_minus_beta_2=1.0 - beta_2,
        **more,
    )
