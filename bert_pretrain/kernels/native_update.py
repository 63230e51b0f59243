"""An optimizer's rule as one operation in C++ that moves a variable and its moments in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from bert_pretrain.kernels import native


def in_place(
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
    """variables: the weight, its first and its second moment; more: what else the operation takes."""
    weight, first, second = (variable.handle for variable in variables)
    return getattr(native.library(), operation)(
        weight=weight,
        first=first,
        second=second,
        gradient=gradient,
        gradient_scale=gradient_scale,
        learning_rate=learning_rate,
        beta_1=beta_1,
        rest_1=1.0 - beta_1,  # in float32 the operation would be off in the fifth digit
        beta_2=beta_2,
        rest_2=1.0 - beta_2,
        **more,
    )
