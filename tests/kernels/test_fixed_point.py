"""Sums in fixed point: exact, in any order, on any number of threads; what does not fit is counted."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import tensorflow as tf

from bert_pretrain.kernels import fixed_point
from bert_pretrain.kernels.backend import Backend

FACTOR = tf.constant(2.0**fixed_point.GRADIENT_BITS)


def total(terms: list, backend: Backend) -> tuple[np.ndarray, int]:
    """The int64 sum of float32 arrays and the number of refused values."""
    sums, refused = tf.zeros([], tf.int64), 0
    for term in terms:
        sums, bad = fixed_point.add_as_fixed_point(sums, tf.constant(term), FACTOR, len(terms), backend)
        refused += int(bad)
    return sums.numpy(), refused


def test_sums_are_exact_in_any_order(backend: Backend) -> None:
    random = np.random.default_rng(0)
    terms = list((random.standard_normal([7, 40_000]) * 10.0 ** random.integers(-7, 1, [7, 1])).astype(np.float32))
    sums, refused = total(terms, backend)
    assert refused == 0
    assert (sums == total(terms[::-1], backend)[0]).all()
    for i in range(50):
        units = [Fraction(float(term[i])) * 2**fixed_point.GRADIENT_BITS for term in terms]
        assert int(sums[i]) == sum(map(round, units))
    floats = fixed_point.totals_to_float(tf.constant(sums), tf.constant(0, tf.int64), FACTOR).numpy()
    np.testing.assert_allclose(floats, np.sum(np.float64(terms), axis=0), rtol=2**-23, atol=2.0**-50)


def test_what_does_not_fit_is_counted_and_makes_the_sum_nan(backend: Backend) -> None:
    fits = 2.0 ** (62 - fixed_point.GRADIENT_BITS) / 4  # four terms
    good, bad = np.float32([fits, -fits, 0]), np.float32([np.nan, -np.inf, fits * 1.001])
    sums, refused = total([good, good, good, good], backend)
    assert refused == 0 and abs(sums).max() == 2**62
    sums, refused = total([good, bad, good, good], backend)
    assert refused == 3
    assert np.isnan(fixed_point.totals_to_float(tf.constant(sums), tf.constant(refused, tf.int64), FACTOR)).all()


def test_square_sums_are_the_same_on_any_number_of_threads() -> None:
    values = np.random.default_rng(1).standard_normal([9000, 77]).astype(np.float32)
    found = set()
    for threads in (1, 2, 3, 4):
        with tf.Graph().as_default():
            sums = fixed_point.square_sums([tf.constant(values), tf.constant(values[0])])
            config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, use_per_session_threads=True)
            with tf.compat.v1.Session(config=config) as session:
                result = session.run(sums)
        found.add(result.tobytes())
    assert len(found) == 1
    np.testing.assert_allclose(result, [np.square(np.float64(x)).sum() for x in (values, values[0])], rtol=1e-6)
