"""Compiled functions compute what the plain ones do, and equal calls share one program."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels import xla


def scale_and_add(x: tf.Tensor, y: Optional[tf.Tensor], *, factor: float) -> tuple[tf.Tensor, tf.Tensor]:
    total = x if y is None else x + y
    return total * factor, total


@pytest.mark.parametrize("y", [None, [3.0, 4.0]])
def test_compiled_and_plain_functions_give_the_same(y: Optional[list[float]]) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x, y = tf.constant([1.0, 2.0]), y and tf.constant(y)
        plain, compiled = (xla.function_runner(compiled)(scale_and_add, x, y, factor=0.5) for compiled in (False, True))
        for one, other in zip(*session.run((plain, compiled))):
            np.testing.assert_array_equal(one, other)


def test_calls_share_a_program_unless_shapes_or_numbers_differ() -> None:
    xla._program.cache_clear()
    run = xla.function_runner(compiled=True)
    with tf.Graph().as_default():
        for factor, size in [(0.5, 2), (0.5, 2), (0.25, 2), (0.5, 3)]:
            run(scale_and_add, tf.zeros([size]), None, factor=factor)
    assert xla._program.cache_info().misses == 3
