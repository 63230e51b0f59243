"""What is special to the native operations: threads, blocks of queries, and updates in place."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.kernels.unpadding import find_tokens
from bert_pretrain.optim.adamw import AdamW
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.settings import OptimConfig
from tests import backends

HEADS, HIDDEN, RATE = 2, 32, 0.1
EXAMPLE_IDS = np.array([[1] * 150 + [2] * 100 + [0] * 6, [1] * 256, [1] * 3 + [0] * 253], np.int32)


@pytest.fixture(autouse=True)
def _native() -> None:
    backends.require(Backend.NATIVE)


def run_on_threads(count: int) -> list[np.ndarray]:
    """Outputs and gradients of the kernels and a weight after an update: all that divides work among threads."""
    random = np.random.default_rng(0)
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=count)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        kernels, key = make_kernels(Backend.NATIVE), tf.constant([7, 9], tf.uint32)
        tokens = find_tokens(tf.constant(EXAMPLE_IDS))
        num_tokens = int(session.run(tf.size(tokens.slots)))
        qkv = tf.constant(random.normal(size=[num_tokens, 3 * HIDDEN]), tf.float32)
        ones = tf.ones([HIDDEN])
        context = kernels.attention(tf.constant(EXAMPLE_IDS), tokens, HEADS, RATE)(qkv, key)
        output = kernels.add_and_norm(kernels.gelu(context), context, ones, ones, key, RATE)
        output = kernels.dropout(output, key, RATE)
        grad_output = tf.constant(random.normal(size=[num_tokens, HIDDEN]), tf.float32)
        results = [output, *tf.gradients(output, [qkv, ones], grad_output)]
        weight = tf.compat.v1.get_variable(
            "kernel", initializer=tf.constant(random.normal(size=[700, 101]), tf.float32), use_resource=True
        )
        gradient = tf.constant(random.normal(size=[700, 101]), tf.float32)
        update = Lamb(OptimConfig(), {"kernel": weight}, Backend.NATIVE).apply(
            {"kernel": gradient}, tf.constant(0.1), tf.constant(1.0)
        )
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(update)
        return session.run([*results, weight])


@pytest.mark.parametrize("bits", [None, [7, 9]], ids=["no dropout", "dropout"])
def test_attention_of_examples_longer_than_a_block_of_queries_equals_row_attention(bits: Optional[list[int]]) -> None:
    random = np.random.default_rng(0)
    is_token = EXAMPLE_IDS > 0
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tokens, key = find_tokens(tf.constant(EXAMPLE_IDS)), bits and tf.constant(bits, tf.uint32)
        num_tokens = int(session.run(tf.size(tokens.slots)))
        qkv = tf.constant(random.normal(size=[num_tokens, 3 * HIDDEN]), tf.float32)
        grad_context = random.normal(size=[num_tokens, HIDDEN]) * (np.arange(num_tokens) < is_token.sum())[:, None]
        results = []
        for backend in (Backend.NATIVE, Backend.XLA):
            context = make_kernels(backend).attention(tf.constant(EXAMPLE_IDS), tokens, HEADS, RATE)(qkv, key)
            (grad_qkv,) = tf.gradients(context, qkv, tf.constant(grad_context, tf.float32))
            results.append([value[: is_token.sum()] for value in (context, grad_qkv)])
        for actual, expected in zip(*session.run(results)):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    for one, three in zip(run_on_threads(1), run_on_threads(3)):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("optimizer", [Lamb, AdamW])
def test_a_value_read_before_the_update_does_not_change(optimizer: type) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("kernel", initializer=tf.ones([5]), use_resource=True)
        before = weight.read_value()
        with tf.control_dependencies([before]):
            update = optimizer(OptimConfig(), {"kernel": weight}, Backend.NATIVE).apply(
                {"kernel": tf.ones([5])}, tf.constant(0.5), tf.constant(1.0)
            )
        session.run(tf.compat.v1.global_variables_initializer())
        value, _ = session.run([before, update])
        np.testing.assert_array_equal(value, np.ones(5))
        assert (session.run(weight) < 0.9).all()


def test_a_variable_without_a_value_is_refused() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("kernel", initializer=tf.ones([5]), use_resource=True)
        optimizer = Lamb(OptimConfig(), {"kernel": weight}, Backend.NATIVE)
        with pytest.raises(tf.errors.FailedPreconditionError):
            session.run(optimizer.apply({"kernel": tf.ones([5])}, tf.constant(0.5), tf.constant(1.0)))
