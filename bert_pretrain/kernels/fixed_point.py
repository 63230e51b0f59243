"""Sums that have the same bits in any order of their terms and on any number of threads.

Terms are rounded to 64-bit fixed point, whose additions are exact. What does not fit is counted, not wrapped around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend

# Gradients: steps of 2^-53. A float32 of magnitude 2^-29 or more is held without any rounding.
GRADIENT_BITS = 53
STATISTIC_BITS = 20  # of losses and counts
_LARGEST_SUM = 2.0**62  # units; int64 ends at 2^63
_LANES = 32  # parts of a variable whose squares are summed separately, each on one thread


def add_as_fixed_point(
    totals: tf.Tensor, values: tf.Tensor, factor: tf.Tensor, num_terms: int, backend: Backend
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds values * factor, rounded, to int64 totals, of the same shape or a scalar zero at the beginning.

    factor: float32 scalar, units in 1. num_terms: how many values are added to each total over all ranks; a term may
    use that part of the range. Returns the sums and, int64 scalar, how many values were left out because they are not
    finite or do not fit.
    """
    limit = _LARGEST_SUM / 2 ** math.ceil(math.log2(num_terms))
    if backend is Backend.NATIVE:
        added = native.library().bert_pretrain_add_fixed(totals=totals, values=values, factor=factor, limit=limit)
        return added.sums, added.refused
    units = values * factor
    fits = tf.abs(units) <= limit  # false for NaN, too
    terms = tf.cast(tf.round(tf.where(fits, units, tf.zeros_like(units))), tf.int64)
    return totals + terms, tf.math.count_nonzero(tf.logical_not(fits), dtype=tf.int64)


def totals_to_float(totals: tf.Tensor, refused: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """int64 totals -> float32 totals / factor; NaN everywhere if any term was refused (int64 scalar above 0)."""
    unit = tf.where(refused > 0, math.nan, 1.0 / factor)
    return tf.cast(totals, tf.float32) * unit


def square_sum_lanes(values: tf.Tensor) -> tf.Tensor:
    """[32] float32: sums of squares of 32 parts of float32 values of known size.

    A sum of all elements at once is cut by the number of threads, so its last bits depend on it; sums of rows do not.
    """
    flat = tf.reshape(values, [-1])
    flat = tf.pad(flat, [[0, -flat.shape.num_elements() % _LANES]]) if flat.shape.num_elements() % _LANES else flat
    return tf.reduce_sum(tf.square(tf.reshape(flat, [_LANES, -1])), axis=1)


def square_sums(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """[N] float32: the sum of squares of each tensor, the same bits on any number of threads."""
    return tf.reduce_sum(tf.stack([square_sum_lanes(tensor) for tensor in tensors]), axis=1)
