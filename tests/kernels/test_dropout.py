"""Dropout masks: their rate, reproducibility, and independence of place, update, micro-batch, rank and seed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels.dropout import Dropout, drop_units

SIZE = 200_000


def masks(hashed: bool, seed=1, rank=0, update=7, micro_batch=2, places=1, rate=0.1) -> list[np.ndarray]:
    """For each of the first places: which units are kept."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        dropout = Dropout(seed, rank, tf.constant(update), tf.constant(micro_batch), hashed)
        ones = tf.ones([SIZE])
        dropped = [drop_units(ones, dropout.draw([tf.shape(ones)])[0], rate) for _ in range(places)]
        return [value > 0 for value in session.run(dropped)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("hashed", [False, True])
def test_the_rate_is_kept_and_kept_units_are_scaled(hashed: bool, rate: float) -> None:
    (kept,) = masks(hashed, rate=rate)
    standard_error = np.sqrt(rate * (1 - rate) / SIZE)
    assert abs(1 - kept.mean() - rate) < 5 * standard_error
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        ones = tf.ones([SIZE])
        bits = Dropout(1, 0, tf.constant(0), tf.constant(0), hashed).draw([tf.shape(ones)])[0]
        values = session.run(drop_units(ones, bits, rate))
    assert np.unique(values) == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-4)


@pytest.mark.parametrize("hashed", [False, True])
def test_the_same_place_and_micro_batch_have_the_same_mask(hashed: bool) -> None:
    np.testing.assert_array_equal(masks(hashed)[0], masks(hashed)[0])


@pytest.mark.parametrize("hashed", [False, True])
def test_masks_of_other_places_updates_micro_batches_ranks_and_seeds_are_independent(hashed: bool) -> None:
    kept = [
        *masks(hashed, places=3),
        *masks(hashed, update=8),
        *masks(hashed, micro_batch=3),
        *masks(hashed, rank=1),
        *masks(hashed, seed=2),
    ]
    correlations = np.corrcoef(np.array(kept, np.float64)) - np.eye(len(kept))
    assert np.abs(correlations).max() < 5 / np.sqrt(SIZE)


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("lag", [1, 2, 7, 64, 512, 1024, 4096])
def test_units_of_one_mask_are_independent(hashed: bool, lag: int) -> None:
    (kept,) = masks(hashed, rate=0.5)
    assert abs(np.corrcoef(kept[lag:], kept[:-lag])[0, 1]) < 5 / np.sqrt(SIZE)


@pytest.mark.parametrize("count", [6, 7])
def test_words_are_drawn_for_a_shape_of_which_nothing_is_known(count: int) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = tf.compat.v1.placeholder(tf.float32, [None, None])
        bits = Dropout(1, 0, tf.constant(0), tf.constant(0), hashed=False).draw([tf.shape(inputs)])[0]
        drawn = session.run(bits, {inputs: np.ones([1, count])})
        known = session.run(Dropout(1, 0, tf.constant(0), tf.constant(0), False).draw([tf.constant([1, count])])[0])
    np.testing.assert_array_equal(drawn, known)
