"""Dropout whose masks are a pure function of where and when they are drawn.

A run that is stopped and continued must drop the same units (design 5.7), so no generator carries state: the bits of
a mask come from the run's seed, the rank, the update, the micro-batch and the place in the network.

There are two sources of bits. Compiled kernels, XLA's and native ones, get a key and hash each unit's number with it
where the mask is used, forward and again backward, so that no mask is ever in memory. Without a compiler that would
take a dozen passes, so the words are drawn beforehand.
"""

from __future__ import annotations

import tensorflow as tf

HASHES = 2**32  # different ones
_WORDS = 2**16  # different ones that are drawn: 0.1 becomes 6554 / 65536 = 0.10001


class Dropout:
    """The bits of one micro-batch's masks; each call is one place in the network, numbered in order of calls."""

    def __init__(self, seed: int, rank: int, update: tf.Tensor, micro_batch: tf.Tensor, hashed: bool) -> None:
        """seed and rank are numbers, update and micro_batch integer scalars of the graph.

        hashed: bits are keys, for whoever hashes.
        """
        self._fixed = (seed * 1_000_003 + rank) * 1_000_003
        self._moving = tf.cast(update, tf.int64) * 2**20 + tf.cast(micro_batch, tf.int64)
        self._hashed = hashed
        self._num_places = 0

    def bits(self, shape: tf.Tensor) -> tf.Tensor:
        """What `drop` makes a mask of this shape from: a key, [2] uint32, or words, uint16 of the shape."""
        place, self._num_places = self._num_places, self._num_places + 1
        seed = tf.stack([tf.constant((self._fixed + place) % 2**63, tf.int64), self._moving])
        if self._hashed:
            return tf.random.stateless_uniform([2], seed, None, None, tf.uint32)
        count = tf.reduce_prod(shape)
        draws = tf.random.stateless_uniform([(count + 1) // 2], seed, None, None, tf.uint32)  # two words in each
        return tf.reshape(tf.reshape(tf.bitcast(draws, tf.uint16), [-1])[:count], shape)


def drop(inputs: tf.Tensor, bits: tf.Tensor, rate: float) -> tf.Tensor:
    """inputs with about rate of its units zero and the others divided by 1 - rate; its own gradient, too."""
    if bits.dtype == tf.uint32:
        kinds, dropped = HASHES, num_dropped(rate, HASHES)
        kept = _hash_of_numbers(tf.shape(inputs), bits) >= tf.constant(dropped, tf.uint32)
    else:
        kinds, dropped = _WORDS, num_dropped(rate, _WORDS)
        kept = tf.cast(bits, tf.int32) >= dropped
    return tf.where(kept, inputs * tf.cast(kinds / (kinds - dropped), inputs.dtype), tf.zeros([], inputs.dtype))


def num_dropped(rate: float, kinds: int) -> int:
    """How many of so many kinds of bits drop a unit: the lowest."""
    return round(rate * kinds)


def _hash_of_numbers(shape: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A hash of each unit's number in an array of this shape; two rounds, so that two keys' masks are unrelated."""
    numbers = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32)
    mixed = _mix(tf.bitwise.bitwise_xor(numbers, key[0]))
    return tf.reshape(_mix(tf.bitwise.bitwise_xor(mixed, key[1])), shape)


def _mix(values: tf.Tensor) -> tf.Tensor:
    """A bijection of 32-bit words in which each input bit moves each output bit about half the time.

    The constants are Wellons's "lowbias32" (https://nullprogram.com/blog/2018/07/31/).
    """
    values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(16))) * _word(0x7FEB352D)
    values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(15))) * _word(0x846CA68B)
    return tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(16)))


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)
