"""Evaluation on a finite set: every example once, numerators and denominators summed over ranks (design 5.8).

The evaluation network stands in the same graph as the training step and reads the same variables, so an evaluation
neither restarts the training input nor copies a weight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.data.input_fn import EvaluationInput
from bert_pretrain.data.schema import Batch
from bert_pretrain.model.kernels import Kernels
from bert_pretrain.train import network
from bert_pretrain.train.job import Job
from bert_pretrain.train.metrics import summarize
from bert_pretrain.train.network import Statistics


class Evaluated(NamedTuple):
    """What one evaluation found."""

    metrics: dict[str, Optional[float]]  # masked_lm_loss, masked_lm_accuracy, next_sentence_loss, ..._accuracy
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
        # Only the batch's own sums are float32: an evaluation's totals are added up in float64 on the host.
        self._sums = tf.stack(
            network.statistics(
                weights, batch, job.model, Kernels(job.config.device.use_xla), compute_dtype=job.compute_dtype
            )
        )
        self._num_examples = source.num_examples
        self._world = job.world
        self._takes_part = job.world.is_root or job.config.run.is_dist_eval_enabled

    def run(self, session: tf.compat.v1.Session) -> Evaluated:
        """Evaluates the session's weights. A collective: every rank must enter it."""
        begin = time.monotonic()
        totals = self._totals(session) if self._takes_part else np.zeros(len(Statistics._fields))
        sums = Statistics(*self._world.sum_numbers(totals))
        num_examples = round(sums.next_sentence_count)
        assert num_examples == self._num_examples, f"evaluated {num_examples} examples of {self._num_examples}"
        return Evaluated(summarize(sums), num_examples, time.monotonic() - begin)

    def _totals(self, session: tf.compat.v1.Session) -> np.ndarray:
        """This rank's share of the sums, float64."""
        totals = np.zeros(len(Statistics._fields))
        session.run(self._rewind)
        while True:
            try:
                totals += session.run(self._sums)
            except tf.errors.OutOfRangeError:
                return totals


def is_due(step: int, batch_examples: int, start: int, between: int) -> bool:
    """True when the update that made `step` crossed a multiple of `between` examples, counted from `start`.

    A pure function of the step, so a resumed run evaluates where an undisturbed one does.
    """

    def evaluations(updates: int) -> int:
        examples = updates * batch_examples
        return 0 if examples < start else (examples - start) // between + 1

    return step > 0 and evaluations(step) > evaluations(step - 1)
