"""Update times and rates. The first updates, checkpoints and evaluations are not counted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.run_files.results import Rates
from bert_pretrain.train.forward import Statistics, ratio

WARM_UP_UPDATES = 2  # of each session: memory is allocated and kernels are compiled in them
_LATEST_UPDATES = 20


class _TimedUpdate(NamedTuple):
    seconds: float
    input_wait_seconds: float
    sums: np.ndarray  # [9] float64, Statistics of all ranks


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
        examples_per_second=ratio(sums.next_sentence_count, total),
        updates_per_second=ratio(len(seconds), total),
        tokens_per_second=ratio(sums.tokens, total),
        padding_share=ratio(sums.computed - sums.tokens, sums.computed),
        step_seconds_median=float(np.median(seconds)) if seconds else None,
        step_seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
        input_wait_share=ratio(sum(update.input_wait_seconds for update in timed), total),
    )
