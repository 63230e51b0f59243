"""Removing and restoring padding, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels import unpadding

WIDTH = 2


def pad_and_unpad(example_ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """slots, indices, random values of the tokens, the rows padded from them, the values unpadded from those rows, the
    gradient that arrives at the rows, and the gradients of pad and unpad.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tokens = unpadding.find_tokens(tf.constant(example_ids))
        count = tf.size(tokens.slots)
        values = tf.random.stateless_uniform([count, WIDTH], [1, 2])
        rows = tokens.pad(values)
        unpadded = tokens.unpad(rows)
        grad_padded = tf.random.stateless_uniform(tf.shape(rows), [3, 4])
        (grad_values,) = tf.gradients(rows, values, grad_padded)
        (grad_rows,) = tf.gradients(tokens.unpad(rows), rows, values)
        return session.run((*tokens, values, rows, unpadded, grad_padded, grad_values, grad_rows))


@pytest.mark.parametrize(
    "lengths, width, num_computed",
    [([64, 64], 64, 128), ([63, 1], 64, 128), ([10, 20], 128, 64), ([40, 24], 128, 128), ([3, 5], 20, 40)],
)
def test_all_tokens_and_little_padding_are_computed(lengths: list[int], width: int, num_computed: int) -> None:
    example_ids = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    slots, indices, values, rows, unpadded, grad_padded, grad_values, grad_rows = pad_and_unpad(example_ids)
    flat = example_ids.reshape(-1)
    assert len(slots) == len(set(slots)) == num_computed
    assert set(np.flatnonzero(flat)) <= set(slots)
    np.testing.assert_array_equal(indices[slots], np.arange(len(slots)))
    left_out = np.setdiff1d(np.arange(flat.size), slots)
    assert (flat[slots[indices[left_out]]] == 0).all()
    np.testing.assert_array_equal(rows[slots], values)
    np.testing.assert_array_equal(unpadded, values)
    np.testing.assert_array_equal(grad_values, grad_padded[slots])
    np.testing.assert_array_equal(grad_rows[slots], values)
