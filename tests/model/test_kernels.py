"""Each kernel's value and written-out gradient against TensorFlow's own of the plain expression, same masks."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.model import dropout as dropouts
from bert_pretrain.model.dropout import Dropout
from bert_pretrain.model.kernels import Kernels, attention_mask

RATE = 0.3
T, H = 12, 16
R, N, S, D = 2, 3, 8, 4


def plain_gelu(x):
    return x * 0.5 * (1.0 + tf.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def plain_layer_norm(x, gamma, beta):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-12) * gamma + beta


def plain_dropout(x, bits):
    return x if bits is None else dropouts.drop(x, bits, RATE)


def plain_attention(query, key, value, example_ids, bits):
    scores = tf.einsum("rnsd,rntd->rnst", query, key) / np.sqrt(D)
    visible = tf.equal(example_ids[:, None, :, None], example_ids[:, None, None, :])
    probabilities = tf.nn.softmax(tf.where(visible, scores, scores - 10000.0))
    return tf.einsum("rnst,rntd->rnsd", plain_dropout(probabilities, bits), value)


def both(shapes, ours, plain, mask_shape, compiled, drops):
    """Outputs and gradients of a kernel and of the plain expression, on the same random inputs."""
    random = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
        bits = None
        if drops:
            bits = Dropout(5, 0, tf.constant(3), tf.constant(1), compiled).bits(tf.constant(mask_shape))
        results = []
        for function in (ours, plain):
            output = function(*inputs, bits)
            upstream = tf.constant(np.random.default_rng(1).normal(size=output.shape), tf.float32)
            results.append([output, *tf.gradients(output, inputs, upstream)])
        return session.run(results)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kernel", ["gelu", "dropout", "layer_norm", "add_and_norm", "attention"])
def test_value_and_gradient(kernel: str, compiled: bool, drops: bool) -> None:
    kernels = Kernels(compiled)
    example_ids = tf.constant([[1] * 5 + [2] * 2 + [0], [1] * 8]).numpy()
    flat, vector, heads = [T, H], [H], [R, N, S, D]
    cases = {
        "gelu": ([flat], lambda x, bits: kernels.gelu(x), lambda x, bits: plain_gelu(x), flat),
        "dropout": ([flat], lambda x, bits: kernels.dropout(x, bits, RATE), plain_dropout, flat),
        "layer_norm": (
            [flat, vector, vector],
            lambda x, g, b, bits: kernels.layer_norm(x, g, b),
            lambda x, g, b, bits: plain_layer_norm(x, g, b),
            flat,
        ),
        "add_and_norm": (
            [flat, flat, vector, vector],
            lambda x, r, g, b, bits: kernels.add_and_norm(x, r, g, b, bits, RATE),
            lambda x, r, g, b, bits: plain_layer_norm(r + plain_dropout(x, bits), g, b),
            flat,
        ),
        "attention": (
            [heads, heads, heads],
            lambda q, k, v, bits: kernels.attention(q, k, v, attention_mask(tf.constant(example_ids)), bits, RATE),
            lambda q, k, v, bits: plain_attention(q, k, v, example_ids, bits),
            [R, N, S, S],
        ),
    }
    shapes, ours, plain, mask_shape = cases[kernel]
    for mine, judge in zip(*both(shapes, ours, plain, mask_shape, compiled, drops)):
        np.testing.assert_allclose(mine, judge, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_half_precision_keeps_its_dtype(compiled: bool) -> None:
    kernels = Kernels(compiled)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        half = tf.constant(np.random.default_rng(0).normal(size=[T, H]), tf.float16)
        bits = Dropout(5, 0, tf.constant(3), tf.constant(1), compiled).bits(tf.shape(half))
        ones = tf.ones([H])
        output = kernels.add_and_norm(kernels.gelu(half), half, ones, ones, bits, RATE)
        heads = tf.reshape(output[:, :S], [1, 1, T, S])
        context = kernels.attention(heads, heads, heads, tf.zeros([1, 1, T, T]), None, 0.0)
        assert output.dtype == context.dtype == tf.float16
        values = session.run([context, *tf.gradients(context, [half])])
        assert all(np.isfinite(value).all() and value.dtype == np.float16 for value in values)
