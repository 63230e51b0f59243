"""Dropout whose masks depend only on --seed, rank, update, micro-batch and place in the network.

A stopped and resumed run must draw the same masks as an uninterrupted one, so no random generator keeps state.

Masks come from one of two kinds of random bits:
- A key, for the compiled kernels (XLA and native). They hash each unit's number with the key where they use the mask,
  in the forward and again in the backward pass, so that no mask is stored in memory.
- Words, one for each unit, for plain TensorFlow operations, where hashing would take a dozen passes over memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bert_pretrain.tensorflow_compat.typed import random_words

NUM_HASHES = 2**32  # possible values of a hash
_NUM_WORDS = 2**16  # possible values of a word: rate 0.1 becomes 6554 / 65536 = 0.10001


class Dropout:
    """The random bits of one micro-batch; the n-th that are drawn belong to the n-th dropout of the network."""

    def __init__(self, seed: int, rank: int, update: tf.Tensor, micro_batch: tf.Tensor, hashed: bool) -> None:
        """update and micro_batch: integer scalar tensors. hashed: bits are keys instead of words."""
        self._constant_seed = (seed * 1_000_003 + rank) * 1_000_003
        with tf.device("/cpu:0"):
            self._step_seed = tf.cast(update, tf.int64) * 2**20 + tf.cast(micro_batch, tf.int64)
        self._hashed = hashed
        self._num_places = 0

    def draw(self, shapes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Random bits for `drop_units` on tensors of these shapes: keys [2] uint32, or words of the shapes, uint16."""
        with tf.device("/cpu:0"):  # a GPU's random operations read seeds from the host
            seeds = [self._next_seed() for _ in shapes]
            # All keys of a network go to a GPU together, as 64 bits each, for GPUs do not take uint32 apart.
            keys = [random_words([2], seed) for seed in seeds] if self._hashed else []
            keys = tf.bitcast(tf.stack(keys), tf.int64) if keys else None
        if keys is not None:
            return [tf.bitcast(key, tf.uint32) for key in tf.unstack(keys)]
        return [_draw_words(shape, seed) for shape, seed in zip(shapes, seeds)]

    def _next_seed(self) -> tf.Tensor:
        place, self._num_places = self._num_places, self._num_places + 1
        return tf.stack([tf.constant((self._constant_seed + place) % 2**63, tf.int64), self._step_seed])


def _draw_words(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """uint16 of this shape."""
    count = tf.reduce_prod(shape)
    draws = random_words([(count + 1) // 2], seed)  # two words each
    words = tf.bitcast(draws, tf.uint16)
    # TensorFlow 2.6 slices uint16 on the host. A size that is even leaves nothing to cut off.
    known = tf.get_static_value(shape, partial=True)  # None for a shape of which nothing is known
    if not any(size is not None and size % 2 == 0 for size in (() if known is None else known)):
        words = tf.reshape(words, [-1])[:count]
    return tf.reshape(words, shape)


def drop_units(inputs: tf.Tensor, bits: tf.Tensor, rate: float) -> tf.Tensor:
    """Sets about rate of the units to zero and divides the others by 1 - rate. The gradient is the same function."""
    if bits.dtype == tf.uint32:
        num_values, threshold = NUM_HASHES, num_dropped(rate, NUM_HASHES)
        kept = _hash_unit_numbers(tf.shape(inputs), bits) >= tf.constant(threshold, tf.uint32)
    else:
        num_values, threshold = _NUM_WORDS, num_dropped(rate, _NUM_WORDS)
        kept = bits >= tf.constant(threshold, tf.uint16)  # compared as int32, the words would go to a GPU's host
    # In float32: in bfloat16 the factor of rate 0.1 would be 0.2 % too small.
    scaled = tf.cast(inputs, tf.float32) * (num_values / (num_values - threshold))
    return tf.where(kept, tf.cast(scaled, inputs.dtype), tf.zeros([], inputs.dtype))


def num_dropped(rate: float, num_values: int) -> int:
    """How many of the possible values of a hash or word drop their unit; these are the smallest ones."""
    return round(rate * num_values)


def _hash_unit_numbers(shape: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """A hash of each unit's number in an array of this shape. Two rounds make the masks of two keys independent."""
    numbers = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32)
    mixed = _mix(tf.bitwise.bitwise_xor(numbers, key[0]))
    return tf.reshape(_mix(tf.bitwise.bitwise_xor(mixed, key[1])), shape)


def _mix(values: tf.Tensor) -> tf.Tensor:
    """A bijection of 32-bit words in which each input bit flips each output bit with probability about one half.

    It is Wellons's "lowbias32" (https://nullprogram.com/blog/2018/07/31/).
    """
    values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(16))) * _word(0x7FEB352D)
    values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(15))) * _word(0x846CA68B)
    return tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, _word(16)))


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)
