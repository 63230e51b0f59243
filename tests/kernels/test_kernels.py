"""Outputs and hand-written gradients of each kernel against the plain expression and its automatic gradients."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels import dropout as dropouts
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.kernels.unpadding import find_tokens

RATE = 0.3
T, H = 12, 16
R, N, S, D = 3, 3, 8, 4
EXAMPLE_IDS = np.array([[1] * 5 + [2] * 2 + [0], [1] * 8, [1] * 2 + [0] * 6], np.int32)
NUM_TOKENS = int((EXAMPLE_IDS > 0).sum())


def plain_gelu(x):
    return x * 0.5 * (1.0 + tf.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def plain_layer_norm(x, gamma, beta):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-12) * gamma + beta


def plain_dropout(x, bits):
    return x if bits is None else dropouts.drop_units(x, bits, RATE)


def plain_attention(qkv, bits):
    """[NUM_TOKENS, 3H] -> [NUM_TOKENS, H], from the scores of all pairs of slots."""
    split = tf.reshape(tf.scatter_nd(np.argwhere(EXAMPLE_IDS > 0), qkv, [R, S, 3 * N * D]), [R, S, 3, N, D])
    query, key, value = (tf.transpose(part, [0, 2, 1, 3]) for part in tf.unstack(split, axis=2))
    scores = tf.einsum("rnsd,rntd->rnst", query, key) / np.sqrt(D)
    visible = EXAMPLE_IDS[:, None, :, None] == EXAMPLE_IDS[:, None, None, :]
    probabilities = tf.nn.softmax(tf.where(visible, scores, scores - 10000.0))
    context = tf.einsum("rnst,rntd->rsnd", plain_dropout(probabilities, bits), value)
    return tf.gather_nd(tf.reshape(context, [R, S, N * D]), np.argwhere(EXAMPLE_IDS > 0))


def kernel_attention(kernels, qkv, bits):
    """The same computed by a kernel, with the padding that Tokens keeps after the tokens."""
    tokens = find_tokens(tf.constant(EXAMPLE_IDS))
    padding = tf.ones([tf.size(tokens.slots) - NUM_TOKENS, 3 * N * D])
    attend = kernels.attention(tf.constant(EXAMPLE_IDS), tokens, N, RATE)
    context = attend(tf.concat([qkv, padding], axis=0), bits)
    return tf.ensure_shape(context[:NUM_TOKENS], [NUM_TOKENS, N * D])


def run_both(shapes, kernel, plain, mask_shape, hashed, drops):
    """Outputs and gradients of a kernel and of the plain expression, on the same random inputs and masks."""
    random = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
        bits = None
        if drops:
            bits = Dropout(5, 0, tf.constant(3), tf.constant(1), hashed).draw([tf.constant(mask_shape)])[0]
        results = []
        for function in (kernel, plain):
            outputs = function(*inputs, bits)
            grad_outputs = tf.constant(np.random.default_rng(1).normal(size=outputs.shape), tf.float32)
            results.append([outputs, *tf.gradients(outputs, inputs, grad_outputs)])
        return session.run(results)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("kernel", ["gelu", "dropout", "layer_norm", "add_and_norm", "attention"])
def test_outputs_and_gradients_are_those_of_the_plain_expression(kernel: str, backend: Backend, drops: bool) -> None:
    kernels = make_kernels(backend)
    flat, vector = [T, H], [H]
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
            [[NUM_TOKENS, 3 * N * D]],
            lambda x, bits: kernel_attention(kernels, x, bits),
            plain_attention,
            [R, N, S, S],
        ),
    }
    shapes, ours, plain, mask_shape = cases[kernel]
    for actual, expected in zip(*run_both(shapes, ours, plain, mask_shape, backend is not Backend.PLAIN, drops)):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", [Backend.PLAIN, Backend.XLA], ids=lambda backend: backend.value)
def test_float16_data_gives_finite_float16_outputs_and_gradients(backend: Backend) -> None:
    kernels = make_kernels(backend)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        half = tf.constant(np.random.default_rng(0).normal(size=[T, H]), tf.float16)
        bits = Dropout(5, 0, tf.constant(3), tf.constant(1), backend.is_compiled).draw([tf.shape(half)])[0]
        ones = tf.ones([H])
        output = kernels.add_and_norm(kernels.gelu(half), half, ones, ones, bits, RATE)
        example_ids = tf.ones([1, T], tf.int32)
        attend = kernels.attention(example_ids, find_tokens(example_ids), 2, 0.0)
        context = attend(tf.concat([output, output, output], axis=1), None)
        assert output.dtype == context.dtype == tf.float16
        values = session.run([context, *tf.gradients(context, [half])])
        assert all(np.isfinite(value).all() and value.dtype == np.float16 for value in values)
