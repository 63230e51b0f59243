"""Evaluation on a finite set: every example once, numerators and denominators summed over ranks (design 5.8).

The evaluation network stands in the same graph as the training step and reads the same variables, so an evaluation
neither restarts the training input nor copies a weight.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.data.input_fn import EvaluationInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import kernels_of
from bert_pretrain.train import forward
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job
from bert_pretrain.train.metrics import ratio, summarize

_CALL_SECONDS = 10.0  # between calls of a root that evaluates alone; Horovod's patience is a minute


class Evaluated(NamedTuple):
    """What one evaluation found."""

    metrics: dict[str, Optional[float]]  # losses, accuracies, and what always guessing one token would reach
    num_examples: int
    seconds: float


class Evaluation:
    """The evaluation network in the default graph."""

    def __init__(
        self,
        weights: Mapping[str, tf.Variable],
        source: EvaluationInput,
        job: Job,
    ) -> None:
        features, self._rewind = source.tensors()
        batch = Batch(*(features[name] for name in Batch._fields))
        # Not XLA's: forward alone gains little by them, and each new shape would cost more than it.
        kernels = kernels_of(Backend.PLAIN if job.backend is Backend.XLA else job.backend)
        sums = forward.statistics(weights, batch, job.model, kernels, compute_dtype=job.compute_dtype)
        # Only the batch's own sums are float32: an evaluation's totals are added up in float64 on the host.
        self._sums = tf.stack(sums)
        self._token_counts = tf.math.bincount(batch.masked_ids, minlength=job.model.vocab_size)
        self._num_sums, self._vocab_size = len(Statistics._fields), job.model.vocab_size
        self._num_examples = source.num_examples
        self._world = job.world
        self._root_alone = not job.config.run.is_dist_eval_enabled and job.world.size > 1

    def run(self, session: tf.compat.v1.Session) -> Evaluated:
        """Evaluates the session's weights. A collective: every rank must enter it."""
        begin = time.monotonic()
        totals = self._totals_of_root(session) if self._root_alone else sum(self._batches(session), self._nothing())
        totals = self._world.host_allreduce(totals)
        sums, token_counts = Statistics(*totals[: self._num_sums]), totals[self._num_sums :]
        num_examples = round(sums.next_sentence_count)
        assert num_examples == self._num_examples, f"evaluated {num_examples} examples of {self._num_examples}"
        metrics = {**summarize(sums), "most_frequent_token": ratio(token_counts.max(), token_counts.sum())}
        return Evaluated(metrics, num_examples, time.monotonic() - begin)

    def _batches(self, session: tf.compat.v1.Session) -> Iterator[np.ndarray]:
        """For each batch of this rank's share the sums, then the masked tokens by vocabulary entry."""
        session.run(self._rewind)
        while True:
            try:
                yield np.concatenate(session.run([self._sums, self._token_counts]))
            except tf.errors.OutOfRangeError:
                return

    def _totals_of_root(self, session: tf.compat.v1.Session) -> np.ndarray:
        """Root's sums; zeros on the others, who answer its calls, so that Horovod does not take them for stalled."""
        totals = self._nothing()
        if not self._world.is_root:
            while self._world.broadcast(None):
                pass
            return totals
        called = time.monotonic()
        for sums in self._batches(session):
            totals += sums
            if time.monotonic() - called > _CALL_SECONDS:
                self._world.broadcast(True)
                called = time.monotonic()
        self._world.broadcast(False)
        return totals

    def _nothing(self) -> np.ndarray:
        return np.zeros(self._num_sums + self._vocab_size)


def is_due(step: int, batch_examples: int, start: int, between: int) -> bool:
    """True when the update that made `step` crossed a multiple of `between` examples, counted from `start`.

    A pure function of the step, so a resumed run evaluates where an undisturbed one does.
    """

    def evaluations(updates: int) -> int:
        examples = updates * batch_examples
        return 0 if examples < start else (examples - start) // between + 1

    return step > 0 and evaluations(step) > evaluations(step - 1)
