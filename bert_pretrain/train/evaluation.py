"""Evaluation on a finite set: every example once, numerators and denominators summed over ranks.

The evaluation network is part of the training graph and reads the same variables, so an evaluation neither restarts
the training input nor copies a weight.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.data.input_fn import EvaluationInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.run_files.results import Evaluated
from bert_pretrain.train import forward
from bert_pretrain.train.forward import Statistics, ratio, summarize
from bert_pretrain.train.job import Job

# Between two exchanges in which the ranks agree to go on. Horovod reports ranks that wait longer than a minute.
_SECONDS_BETWEEN_EXCHANGES = 1.0


class Evaluation:
    """The evaluation network in the default graph."""

    def __init__(self, job: Job, weights: Mapping[str, tf.Variable], source: EvaluationInput) -> None:
        features, self._rewind = source.tensors()
        batch = Batch(*(features[name] for name in Batch._fields))
        # XLA gains little in a forward pass, and compiling for each new shape costs more than that.
        backend = Backend.PLAIN if job.device.backend is Backend.XLA else job.device.backend
        sums = forward.statistics(weights, batch, job.model, make_kernels(backend), precision=job.device.precision)
        # Sums of a batch are float32; the sums over batches are float64 on the host.
        self._sums = tf.stack(sums)
        self._token_counts = tf.math.bincount(batch.masked_ids, minlength=job.model.vocab_size)
        self._num_sums, self._vocab_size = len(Statistics._fields), job.model.vocab_size
        self._num_examples = source.num_examples
        self._world = job.world
        self._is_root_alone = not job.config.run.is_dist_eval_enabled and job.world.size > 1

    def run(self, session: tf.compat.v1.Session) -> Optional[Evaluated]:
        """Evaluates the session's weights; None if a rank was asked to stop before all were done. A collective."""
        begin = time.monotonic()
        totals = np.zeros(self._num_sums + self._vocab_size)
        is_idle = self._is_root_alone and not self._world.is_root
        batches = iter(()) if is_idle else self._batch_sums(session)
        while True:
            is_done = _add_batches(totals, batches)
            ranks = self._world.allgather((is_done, self._world.stop.requested))
            if all(is_done for is_done, _ in ranks):
                break
            if any(is_stop_requested for _, is_stop_requested in ranks):
                return None
        return self._evaluated(self._world.host_allreduce(totals), time.monotonic() - begin)

    def _evaluated(self, totals: np.ndarray, seconds: float) -> Evaluated:
        sums, token_counts = Statistics(*totals[: self._num_sums]), totals[self._num_sums :]
        num_examples = round(sums.next_sentence_count)
        assert num_examples == self._num_examples, f"evaluated {num_examples} examples of {self._num_examples}"
        metrics = {**summarize(sums), "most_frequent_token": ratio(token_counts.max(), token_counts.sum())}
        return Evaluated(metrics, num_examples, seconds)

    def _batch_sums(self, session: tf.compat.v1.Session) -> Iterator[np.ndarray]:
        """[9 + V] float64 for each batch of this rank: Statistics, then masked tokens counted by vocabulary entry."""
        session.run(self._rewind)
        while True:
            try:
                yield np.concatenate(session.run([self._sums, self._token_counts]))
            except tf.errors.OutOfRangeError:
                return


def _add_batches(totals: np.ndarray, batches: Iterator[np.ndarray]) -> bool:
    """Adds the sums of the batches of about a second. Returns True when there are no more."""
    end = time.monotonic() + _SECONDS_BETWEEN_EXCHANGES
    for sums in batches:
        totals += sums
        if time.monotonic() >= end:
            return False
    return True


def is_due(step: int, batch_examples: int, start: int, between: int) -> bool:
    """True when the update that made `step` crossed a multiple of `between` examples, counted from `start`.

    A pure function of the step, so that a resumed run evaluates after the same updates as an uninterrupted one.
    """

    def evaluations(updates: int) -> int:
        examples = updates * batch_examples
        return 0 if examples < start else (examples - start) // between + 1

    return step > 0 and evaluations(step) > evaluations(step - 1)


def num_due(first: int, last: int, batch_examples: int, start: int, between: int) -> int:
    """Updates after `first`, up to `last`, for which is_due holds."""
    if between > batch_examples:

        def evaluations(updates: int) -> int:
            return max(0, (updates * batch_examples - start) // between + 1)

        return evaluations(last) - evaluations(first) if last > first else 0
    before = -(-start // batch_examples) - 1  # updates before the first evaluation; then one after each update
    return max(0, last - max(first, before))
