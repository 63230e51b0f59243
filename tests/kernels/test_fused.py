"""Fused attention: what can be shown of it without a GPU.

Its kernels are compiled as C++ (fused/emulated_device.h) and called from XLA's programs for CPUs by the functions that
call them on GPUs. They are compiled by NVRTC, too, where that is installed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels import fused
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.kernels.unpadding import every_slot
from bert_pretrain.model import encoder, variables
from bert_pretrain.model.layers import Precision

HEADER = Path(__file__).parent / "fused" / "emulated_device.h"
R, S, N, D = 2, 192, 2, 64
# Examples that end within and between tiles of 64 slots, tiles without a common example, and padding.
EXAMPLE_IDS = np.repeat([[1, 2, 3, 0], [1, 2, 2, 2]], [70, 58, 57, 7], axis=1).astype(np.int32)
RATE = 0.1


@pytest.fixture(scope="module")
def _emulated() -> None:
    flags = [f'-DEMULATED_DEVICE="{HEADER.name}"', f"-I{HEADER.parent}"]
    try:
        fused.handlers("fused_emulated", [HEADER], flags)
    except fused.UnavailableError as reason:
        pytest.skip(f"needs a C++ compiler and TensorFlow 2.20: {reason}")


def attention(backend: Backend, dtype: tf.DType, drops: bool) -> list[np.ndarray]:
    """The context and the gradient of qkv, of the same random inputs and masks for all backends."""
    random = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        example_ids = tf.compat.v1.placeholder_with_default(tf.constant(EXAMPLE_IDS), [None, None])
        qkv = tf.constant(random.normal(size=[R * S, 3 * N * D]), tf.bfloat16)
        qkv = tf.compat.v1.placeholder_with_default(tf.cast(qkv, dtype), [None, 3 * N * D])
        bits = Dropout(5, 0, tf.constant(3), tf.constant(1), hashed=True).draw([tf.constant([R, N, S, S])])[0]
        attend = GraphKernels(backend).attention(example_ids, every_slot(example_ids), N, RATE)
        context = attend(qkv, bits if drops else None)
        tokens = tf.constant((EXAMPLE_IDS > 0).reshape(-1, 1), tf.float32)
        grad_context = tf.cast(tokens * random.normal(size=[R * S, N * D]), tf.bfloat16)  # none for padding
        (grad_qkv,) = tf.gradients(context, qkv, tf.cast(grad_context, dtype))
        return session.run([tokens * tf.cast(context, tf.float32), tf.cast(grad_qkv, tf.float32)])


@pytest.mark.slow
@pytest.mark.parametrize("drops", [False, True])
def test_emulated_kernels_give_context_and_gradients_of_attention_over_rows(_emulated: None, drops: bool) -> None:
    results = zip(attention(Backend.XLA_FUSED, tf.bfloat16, drops), attention(Backend.XLA, tf.float32, drops))
    for value, expected in results:
        error = np.linalg.norm(value - expected) / np.linalg.norm(expected)
        assert error < 0.005  # bfloat16 has 8 bits
        np.testing.assert_allclose(value, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.slow
def test_same_inputs_give_same_bits_whatever_the_order_of_threads(_emulated: None) -> None:
    first, second = (attention(Backend.XLA_FUSED, tf.bfloat16, drops=True) for _ in range(2))
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_padding_receives_no_gradient(_emulated: None) -> None:
    _, grad_qkv = attention(Backend.XLA_FUSED, tf.bfloat16, drops=True)
    assert not grad_qkv[EXAMPLE_IDS.reshape(-1) == 0].any()


def encoder_gradients(backend: Backend) -> list[np.ndarray]:
    """Hidden states of two layers in bfloat16 with dropout, and the gradients of all weights."""
    model = ModelConfig(
        vocab_size=50, hidden_size=N * D, num_hidden_layers=2, num_attention_heads=N, intermediate_size=64,
        max_position_embeddings=S,
    )  # fmt: skip
    random = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = {name: tf.identity(one) for name, one in variables.create_variables(model, 1).items()}
        numbers = [random.integers(0, size, [R, S]) for size in (50, 2, S)]
        rows = encoder.Rows(*(tf.constant(ids, tf.int32) for ids in (*numbers, EXAMPLE_IDS)))
        dropout = Dropout(5, 0, tf.constant(3), tf.constant(1), hashed=True)
        half = Precision(tf.bfloat16, tf.bfloat16)
        hidden = encoder.encode(weights, rows, model, GraphKernels(backend), dropout, half).hidden
        tokens = tf.constant((EXAMPLE_IDS > 0).reshape(-1, 1), tf.float32)
        outputs = tokens * tf.cast(hidden, tf.float32)
        used = [one for name, one in weights.items() if "encoder" in name or "embeddings" in name]
        gradients = tf.gradients(outputs * random.normal(size=[R * S, N * D]), used)
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run([outputs, *map(tf.convert_to_tensor, gradients)])


@pytest.mark.slow
def test_an_encoder_has_the_same_outputs_and_gradients_with_fused_attention(_emulated: None) -> None:
    found, expected = (encoder_gradients(backend) for backend in (Backend.XLA_FUSED, Backend.XLA))
    for value, other in zip(found, expected):
        scale = np.linalg.norm(other)
        # A key's bias adds the same to all scores of a query, so its gradient is rounding alone.
        assert np.linalg.norm(value - other) < 0.02 * scale or scale < 0.01 * np.linalg.norm(expected[1])


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_compiles_the_kernels(architecture: str) -> None:
    try:
        image = fused.nvrtc_image(architecture)
    except fused.UnavailableError as reason:
        if "is not found" not in str(reason):
            raise
        pytest.skip(str(reason))
    for kernel in (b"AttentionForward", b"AttentionQueryGradient", b"AttentionKeyValueGradient"):
        assert kernel in image


@pytest.mark.parametrize(
    ("dtype", "width", "head_size", "message"),
    [
        (tf.float32, 64, 64, "not in float32"),
        (tf.bfloat16, 64, 32, "heads of 64 units, not of 32"),
        (tf.bfloat16, 96, 64, "multiple of 64, got 96"),
    ],
)
def test_what_the_kernels_cannot_compute_is_refused_in_one_line(
    dtype: tf.DType, width: int, head_size: int, message: str
) -> None:
    with tf.Graph().as_default():
        example_ids = tf.ones([1, width], tf.int32)
        attend = GraphKernels(Backend.XLA_FUSED).attention(example_ids, every_slot(example_ids), 1, RATE)
        with pytest.raises(ValueError, match=message):
            attend(tf.zeros([width, 3 * head_size], dtype), None)


def test_gpus_without_bfloat16_have_no_kernels() -> None:
    with pytest.raises(fused.UnavailableError, match=r"compute capability 7\.5"):
        fused.prepare((7, 5))
