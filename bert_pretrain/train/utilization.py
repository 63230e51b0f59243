"""Utilization: useful FLOP/s over the peak matmul FLOP/s of the same device.

Useful is what the model needs for real tokens (Chowdhery et al. 2022, "PaLM", appendix B: model FLOPs utilization).
"""

from __future__ import annotations

import time
from typing import Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.train.forward import Statistics

# Dense float16 TFLOP/s of GPUs, by a part of their name, from their data sheets.
_PEAK_TFLOPS = {"V100": 125.0, "A100": 312.0, "H100": 989.0, "BI-V100": 147.0}
_SIZE, _REPEATS = 2048, 12  # enough for a CPU, where a product takes milliseconds


def training_flops(sums: Statistics, model: ModelConfig) -> float:
    """Floating-point operations of forward and backward passes over these examples; backward is twice forward."""
    return 3.0 * forward_flops(sums, model)


def forward_flops(sums: Statistics, model: ModelConfig) -> float:
    """Floating-point operations of forward passes over these examples, without padding.

    A multiply-add is two; dropout, norms and softmax are left out. Behind its attention, the last layer needs only the
    tokens that the heads read.
    """
    width, inner = model.hidden_size, model.intermediate_size
    attention = 6.0 * width**2 * sums.tokens + 4.0 * width * sums.squared_lengths
    behind_attention = 2.0 * width**2 + 4.0 * width * inner  # of one token
    read = sums.masked_lm_count + sums.next_sentence_count
    encoder = model.num_hidden_layers * attention + behind_attention * (
        (model.num_hidden_layers - 1) * sums.tokens + read
    )
    masked_lm = sums.masked_lm_count * (2.0 * width**2 + 2.0 * width * model.vocab_size)
    next_sentence = sums.next_sentence_count * (2.0 * width**2 + 4.0 * width)
    return encoder + masked_lm + next_sentence


def peak_flops(
    device_name: str,
    is_gpu: bool,
    peak_tflops: Optional[float],
    config: tf.compat.v1.ConfigProto,
    dtype: tf.DType = tf.float32,
) -> float:
    """Peak FLOP/s of the device: --peak_tflops, else the table's value for a GPU, else measured; 0 if unknown."""
    if peak_tflops:
        return peak_tflops * 1e12
    if is_gpu:
        known = [name for name in _PEAK_TFLOPS if name in device_name]
        return _PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else 0.0
    return matmul_rate(config, dtype)


def matmul_rate(config: tf.compat.v1.ConfigProto, dtype: tf.DType = tf.float32, size: int = _SIZE) -> float:
    """FLOP/s of products of two matrices [size, size], with the session's threads.

    The fastest of a dozen, so that another program on the machine does not make the run look better than it is.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        values = tf.cast(tf.random.stateless_uniform([size, size], [1, 2]), dtype)
        matrix = tf.compat.v1.get_variable("matrix", initializer=values, use_resource=True)
        product = tf.matmul(matrix, matrix).op
        session.run(matrix.initializer)
        session.run(product)
        seconds = []
        for _ in range(_REPEATS):
            begin = time.perf_counter()
            session.run(product)
            seconds.append(time.perf_counter() - begin)
    return 2.0 * size**3 / min(seconds)
