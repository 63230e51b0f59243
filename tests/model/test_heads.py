"""Cross entropy as sums and counts against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.model import heads


def _sums(logits, labels, weights) -> heads.LossSums:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        arguments = np.asarray(logits, np.float32), np.asarray(labels, np.int32), np.asarray(weights, np.float32)
        return session.run(heads.cross_entropy(*map(tf.constant, arguments)))


def _expected(logits, labels, weights) -> tuple[float, float, float]:
    """Loss, correct and count by definition."""
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -log_probs[np.arange(len(labels)), labels]
    hits = logits.argmax(-1) == labels
    return float((weights * nats).sum()), float((weights * hits).sum()), float(np.sum(weights))


def _random(count: int = 12, classes: int = 7):
    random = np.random.default_rng(5)
    weights = random.integers(0, 2, count).astype(np.float32)
    return random.normal(0, 2, (count, classes)).astype(np.float32), random.integers(0, classes, count), weights


def test_sums_are_those_computed_by_hand():
    # Two classes with equal logits: a loss of ln 2 nats each. The third row has weight 0.
    sums = _sums([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]], [0, 1, 1], [1.0, 1.0, 0.0])
    assert sums.loss == pytest.approx(2 * np.log(2.0), rel=1e-6)
    assert sums.correct == 1.0  # of equal logits, argmax takes the first
    assert sums.count == 2.0


def test_sums_are_those_of_the_definition():
    arguments = _random()
    assert tuple(_sums(*arguments)) == pytest.approx(_expected(*arguments), rel=1e-6)


def test_weights_may_be_fractions():
    logits, labels, _ = _random()
    weights = np.linspace(0.0, 2.0, len(labels), dtype=np.float32)
    assert tuple(_sums(logits, labels, weights)) == pytest.approx(_expected(logits, labels, weights), rel=1e-6)


def test_sums_of_parts_add_up_to_that_of_the_whole():
    logits, labels, weights = _random()
    parts = [_sums(logits[part], labels[part], weights[part]) for part in (np.s_[:5], np.s_[5:6], np.s_[6:])]
    whole = _sums(logits, labels, weights)
    assert [sum(values) for values in zip(*parts)] == pytest.approx(list(whole), rel=1e-6)


def test_sums_over_no_tokens_are_zero():
    assert tuple(_sums(np.zeros([0, 7]), np.zeros([0]), np.zeros([0]))) == (0.0, 0.0, 0.0)


def test_the_loss_of_huge_logits_is_finite():
    sums = _sums([[3e4, 0.0, -3e4]], [1], [1.0])
    assert sums.loss == pytest.approx(3e4, rel=1e-6)


def test_gradient_is_weight_times_softmax_minus_label():
    logits, labels, weights = _random()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tensor = tf.constant(logits)
        sums = heads.cross_entropy(tensor, tf.constant(labels, tf.int32), tf.constant(weights))
        gradient = session.run(tf.gradients(sums.loss, tensor)[0])
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = weights[:, None] * (softmax - np.eye(logits.shape[1])[labels])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [97, 128])
def test_a_product_in_16_bits_has_a_logit_and_a_gradient_for_each_entry_of_the_vocabulary(size: int) -> None:
    random = np.random.default_rng(5)
    hidden, embeddings = random.normal(size=[5, 32]), random.normal(size=[size, 32])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = [tf.constant(value, tf.bfloat16) for value in (hidden, embeddings)]
        product = heads._product_with_vocabulary(*inputs)
        assert product.shape == [5, size]
        expected = tf.matmul(*inputs, transpose_b=True)
        gradients = [tf.gradients(tf.square(tf.cast(one, tf.float32)), inputs) for one in (product, expected)]
        ours, plain = session.run([[tf.cast(one, tf.float32) for one in both] for both in gradients])
        logits, reference = session.run([tf.cast(product, tf.float32), tf.cast(expected, tf.float32)])
    np.testing.assert_allclose(logits, reference, rtol=1e-2, atol=1e-2)
    for one, other in zip(ours, plain):
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-1)
