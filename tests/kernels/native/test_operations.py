"""What tests of the kernels and of the optimizers cannot show: bits, threads, and values that are still read."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.kernels.unpadding import find_tokens
from bert_pretrain.optim.adamw import Adamw
from bert_pretrain.optim.lamb import Lamb
from tests import backends

HEADS, HIDDEN, RATE = 2, 32, 0.1
EXAMPLE_IDS = np.array([[1] * 150 + [2] * 100 + [0] * 6, [1] * 256, [1] * 3 + [0] * 253], np.int32)


@pytest.fixture(autouse=True)
def _native() -> None:
    backends.require(Backend.NATIVE)


def on_threads(count: int) -> list[np.ndarray]:
    """Values, gradients and weights after an update, of everything that divides work among threads."""
    random = np.random.default_rng(0)
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=count)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        kernels, key = make_kernels(Backend.NATIVE), tf.constant([7, 9], tf.uint32)
        tokens = find_tokens(tf.constant(EXAMPLE_IDS))
        num_tokens = int(session.run(tf.size(tokens.slots)))
        projected = tf.constant(random.normal(size=[num_tokens, 3 * HIDDEN]), tf.float32)
        ones = tf.ones([HIDDEN])
        context = kernels.attention(tf.constant(EXAMPLE_IDS), tokens, HEADS, RATE)(projected, key)
        output = kernels.add_and_norm(kernels.gelu(context), context, ones, ones, key, RATE)
        output = kernels.dropout(output, key, RATE)
        upstream = tf.constant(random.normal(size=[num_tokens, HIDDEN]), tf.float32)
        found = [output, *tf.gradients(output, [projected, ones], upstream)]
        weight = tf.compat.v1.get_variable(
            "kernel", initializer=tf.constant(random.normal(size=[700, 101]), tf.float32), use_resource=True
        )
        gradient = tf.constant(random.normal(size=[700, 101]), tf.float32)
        update = Lamb(OptimConfig(), {"kernel": weight}, Backend.NATIVE).apply(
            {"kernel": gradient}, tf.constant(0.1), tf.constant(1.0)
        )
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(update)
        return session.run([*found, weight])


@pytest.mark.parametrize("bits", [None, [7, 9]], ids=["kept", "dropped"])
def test_attention_of_examples_longer_than_a_block_of_queries_is_that_on_rows(bits: Optional[list[int]]) -> None:
    random = np.random.default_rng(0)
    is_token = EXAMPLE_IDS > 0
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tokens, key = find_tokens(tf.constant(EXAMPLE_IDS)), bits and tf.constant(bits, tf.uint32)
        num_tokens = int(session.run(tf.size(tokens.slots)))
        projected = tf.constant(random.normal(size=[num_tokens, 3 * HIDDEN]), tf.float32)
        upstream = random.normal(size=[num_tokens, HIDDEN]) * (np.arange(num_tokens) < is_token.sum())[:, None]
        results = []
        for backend in (Backend.NATIVE, Backend.XLA):
            context = make_kernels(backend).attention(tf.constant(EXAMPLE_IDS), tokens, HEADS, RATE)(projected, key)
            (gradient,) = tf.gradients(context, projected, tf.constant(upstream, tf.float32))
            results.append([value[: is_token.sum()] for value in (context, gradient)])
        for mine, judge in zip(*session.run(results)):
            np.testing.assert_allclose(mine, judge, rtol=1e-4, atol=1e-5)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    one, three = on_threads(1), on_threads(3)
    for mine, judge in zip(one, three):
        np.testing.assert_array_equal(mine, judge)


@pytest.mark.parametrize("rule", [Lamb, Adamw])
def test_a_value_that_was_read_before_the_update_stays(rule: type) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("kernel", initializer=tf.ones([5]), use_resource=True)
        before = weight.read_value()
        with tf.control_dependencies([before]):
            update = rule(OptimConfig(), {"kernel": weight}, Backend.NATIVE).apply(
                {"kernel": tf.ones([5])}, tf.constant(0.5), tf.constant(1.0)
            )
        session.run(tf.compat.v1.global_variables_initializer())
        was, _ = session.run([before, update])
        np.testing.assert_array_equal(was, np.ones(5))
        assert (session.run(weight) < 0.9).all()


def test_an_unset_variable_is_refused() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("kernel", initializer=tf.ones([5]), use_resource=True)
        rule = Lamb(OptimConfig(), {"kernel": weight}, Backend.NATIVE)
        with pytest.raises(tf.errors.FailedPreconditionError):
            session.run(rule.apply({"kernel": tf.ones([5])}, tf.constant(0.5), tf.constant(1.0)))
