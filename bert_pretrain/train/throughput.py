"""Update times, rates, and utilization: useful FLOP/s over the peak matmul FLOP/s of the same device.

The first updates, checkpoints and evaluations are not counted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import TRAINING_COST, count_forward_flops
from bert_pretrain.run_files.results import Rates
from bert_pretrain.tensorflow_compat.typed import ConfigProto, Session
from bert_pretrain.train.forward import Statistics, ratio

WARM_UP_UPDATES = 2  # of each session: memory is allocated and kernels are compiled in them
_LATEST_UPDATES = 20
# Dense float16 TFLOP/s of GPUs, by a part of their name, from their data sheets.
_PEAK_TFLOPS = {"V100": 125.0, "A100": 312.0, "H100": 989.0, "H200": 989.0, "BI-V100": 147.0}
_SIZE, _REPEATS = 2048, 12  # enough for a CPU, where a product takes milliseconds


class _TimedUpdate(NamedTuple):
    seconds: float
    input_wait_seconds: float
    sums: np.ndarray  # [10] float64, Statistics of all ranks


class Throughput:
    """Times updates. `paused()` encloses everything that is not training."""

    def __init__(self) -> None:
        self._num_updates = 0
        self._paused_seconds = 0.0
        self._previous_end = time.monotonic()
        self._timed: list[_TimedUpdate] = []
        self._num_reported = 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside is not counted."""
        begin = time.monotonic()
        yield
        self._paused_seconds += time.monotonic() - begin

    def start(self) -> None:
        """The next update begins now."""
        self._previous_end, self._paused_seconds = time.monotonic(), 0.0

    def add_update(self, sums: Statistics, input_wait_seconds: float) -> None:
        """An update has ended; the next begins now."""
        now = time.monotonic()
        seconds = now - self._previous_end - self._paused_seconds
        self.start()
        self._num_updates += 1
        if self._num_updates > WARM_UP_UPDATES:
            self._timed.append(_TimedUpdate(seconds, input_wait_seconds, np.asarray(sums, np.float64)))

    def recent(self) -> Rates:
        """Speed since the previous call."""
        since, self._num_reported = self._num_reported, len(self._timed)
        return _rates(self._timed[since:])

    def latest(self) -> Rates:
        """Speed of the last timed updates, at most twenty."""
        return _rates(self._timed[-_LATEST_UPDATES:])

    @property
    def num_timed(self) -> int:
        """Timed updates of this session."""
        return len(self._timed)

    def total(self) -> Rates:
        """Speed over all timed updates of this session."""
        return _rates(self._timed)

    def work(self) -> tuple[Statistics, float]:
        """Statistics of all timed updates, summed over all ranks, and their seconds."""
        return _sum(self._timed), sum(update.seconds for update in self._timed)


def _sum(timed: list[_TimedUpdate]) -> Statistics:
    return Statistics(*sum((update.sums for update in timed), np.zeros(len(Statistics._fields))))


def _rates(timed: list[_TimedUpdate]) -> Rates:
    seconds = [update.seconds for update in timed]
    total, sums = sum(seconds), _sum(timed)
    return Rates(
        examples_per_second=ratio(sums.examples, total),
        updates_per_second=ratio(len(seconds), total),
        tokens_per_second=ratio(sums.tokens, total),
        padding_share=ratio(sums.computed - sums.tokens, sums.computed),
        step_seconds_median=float(np.median(seconds)) if seconds else None,
        step_seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
        input_wait_share=ratio(sum(update.input_wait_seconds for update in timed), total),
    )


def training_flops(sums: Statistics, model: ModelConfig) -> float:
    """Floating-point operations of forward and backward passes over the examples of the sums, without padding."""
    return TRAINING_COST * forward_flops(sums, model)


def forward_flops(sums: Statistics, model: ModelConfig) -> float:
    """Floating-point operations of forward passes over the examples of the sums, without padding."""
    return count_forward_flops(model, sums.tokens, sums.squared_lengths, sums.masked_lm_count, sums.next_sentence_count)


def peak_flops(
    device_name: str,
    is_gpu: bool,
    peak_tflops: Optional[float],
    config: ConfigProto,
    dtype: tf.DType = tf.float32,
) -> float:
    """Peak FLOP/s of the device: --peak_tflops, else the table's value for a GPU, else measured; 0 if unknown."""
    if peak_tflops:
        return peak_tflops * 1e12
    if is_gpu:
        known = [name for name in _PEAK_TFLOPS if name in device_name]
        return _PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else 0.0
    return matmul_rate(config, dtype)


def matmul_rate(config: ConfigProto, dtype: tf.DType = tf.float32, size: int = _SIZE) -> float:
    """FLOP/s of products of two matrices [size, size], with the session's threads.

    The fastest of a dozen, so that another program on the machine does not make the run look better than it is.
    """
    with tf.Graph().as_default(), Session(config=config) as session:
        values = tf.cast(tf.random.stateless_uniform([size, size], (1, 2)), dtype)
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
