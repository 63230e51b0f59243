"""Dropout whose masks are a pure function of where and when they are drawn.

A run that is stopped and continued must drop the same units (design 5.7), so no generator carries state: each
mask's seed is made from the run's seed, the rank, the update, the micro-batch and the place in the network.
"""

from __future__ import annotations

import tensorflow as tf

_BITS = 16  # random bits per unit: 0.1 becomes 6554 / 65536 = 0.10001


class Dropout:
    """Draws the masks of one micro-batch; each call is one place in the network, numbered in order of calls."""

    def __init__(self, seed: int, rank: int, update: tf.Tensor, micro_batch: tf.Tensor) -> None:
        """seed and rank are numbers, update and micro_batch integer scalars of the graph."""
        self._fixed = (seed * 1_000_003 + rank) * 1_000_003
        self._moving = tf.cast(update, tf.int64) * 2**20 + tf.cast(micro_batch, tf.int64)
        self._num_places = 0

    def __call__(self, inputs: tf.Tensor, rate: float) -> tf.Tensor:
        """inputs, any shape -> the same with about rate of its units zero and the others divided by 1 - rate."""
        place, self._num_places = self._num_places, self._num_places + 1
        dropped = round(rate * 2**_BITS)
        if dropped == 0:
            return inputs
        seed = tf.stack([tf.constant((self._fixed + place) % 2**63, tf.int64), self._moving])
        keep = tf.reshape(_random_words(tf.size(inputs), seed) >= dropped, tf.shape(inputs))
        scale = 2**_BITS / (2**_BITS - dropped)
        return inputs * (tf.cast(keep, inputs.dtype) * tf.cast(scale, inputs.dtype))


def _random_words(count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """[count] uniform 16-bit integers as int32; two for each 32 bits drawn."""
    draws = tf.random.stateless_uniform([(count + 1) // 2], seed, None, None, tf.uint32)
    words = tf.reshape(tf.bitcast(draws, tf.uint16), [-1])
    return tf.cast(words[:count], tf.int32)
