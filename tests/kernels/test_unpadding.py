"""Moving between rows and tokens, and that what is left out has no part in anything."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels import unpadding

WIDTH = 2


def moved(example_ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """slots, numbers, rows made of the tokens' own numbers, and the gradients of both moves."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        found = unpadding.find_tokens(tf.constant(example_ids))
        count = tf.size(found.slots)
        values = tf.random.stateless_uniform([count, WIDTH], [1, 2])
        rows = found.pad(values)
        again = found.unpad(rows)
        upstream = tf.random.stateless_uniform(tf.shape(rows), [3, 4])
        (to_values,) = tf.gradients(rows, values, upstream)
        (to_rows,) = tf.gradients(found.unpad(rows), rows, values)
        return session.run((*found, values, rows, again, upstream, to_values, to_rows))


@pytest.mark.parametrize(
    "lengths, width, num_computed",
    [([64, 64], 64, 128), ([63, 1], 64, 128), ([10, 20], 128, 64), ([40, 24], 128, 128), ([3, 5], 20, 40)],
)
def test_all_tokens_are_computed_and_little_else(lengths: list[int], width: int, num_computed: int) -> None:
    example_ids = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    slots, numbers, values, rows, again, upstream, to_values, to_rows = moved(example_ids)
    flat = example_ids.reshape(-1)
    assert len(slots) == len(set(slots)) == num_computed
    assert set(np.flatnonzero(flat)) <= set(slots)
    np.testing.assert_array_equal(numbers[slots], np.arange(len(slots)))
    left_out = np.setdiff1d(np.arange(flat.size), slots)
    assert (flat[slots[numbers[left_out]]] == 0).all()
    np.testing.assert_array_equal(rows[slots], values)
    np.testing.assert_array_equal(again, values)
    np.testing.assert_array_equal(to_values, upstream[slots])
    np.testing.assert_array_equal(to_rows[slots], values)
