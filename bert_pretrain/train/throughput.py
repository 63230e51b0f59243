"""How long updates take, without what is not training: the first updates, checkpoints and evaluations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.metrics import ratio

WARM_UP_UPDATES = 2  # of each session: memory is claimed and kernels are made in them


class Rates(NamedTuple):
    """Speed over the timed updates; None where none was timed."""

    examples_per_second: Optional[float]
    updates_per_second: Optional[float]
    tokens_per_second: Optional[float]  # real tokens, without padding
    padding_share: Optional[float]  # of the computed tokens
    step_seconds_median: Optional[float]
    step_seconds_p95: Optional[float]
    input_wait_share: Optional[float]  # of the time, spent waiting for this rank's next batch


class _Timed(NamedTuple):
    seconds: float
    input_wait_seconds: float
    sums: np.ndarray  # Statistics of all ranks


class Clock:
    """Times updates; `paused()` goes around anything that is not training."""

    def __init__(self) -> None:
        self._num_updates = 0
        self._paused_seconds = 0.0
        self._last = time.monotonic()
        self._timed: list[_Timed] = []
        self._reported = 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside belongs to no update."""
        begin = time.monotonic()
        yield
        self._paused_seconds += time.monotonic() - begin

    def start(self) -> None:
        """The next update begins now."""
        self._last, self._paused_seconds = time.monotonic(), 0.0

    def tick(self, sums: Statistics, input_wait_seconds: float) -> None:
        """An update has ended."""
        now = time.monotonic()
        seconds, self._last, self._paused_seconds = now - self._last - self._paused_seconds, now, 0.0
        self._num_updates += 1
        if self._num_updates > WARM_UP_UPDATES:
            self._timed.append(_Timed(seconds, input_wait_seconds, np.asarray(sums, np.float64)))

    def recent(self) -> Rates:
        """Speed since the last call."""
        since, self._reported = self._reported, len(self._timed)
        return _rates(self._timed[since:])

    def total(self) -> Rates:
        """Speed over all timed updates of this session."""
        return _rates(self._timed)

    def work(self) -> tuple[Statistics, float]:
        """What the timed updates summed up, all ranks, and their seconds."""
        sums = sum((update.sums for update in self._timed), np.zeros(len(Statistics._fields)))
        return Statistics(*sums), sum(update.seconds for update in self._timed)


def _rates(timed: list[_Timed]) -> Rates:
    seconds = [update.seconds for update in timed]
    total = sum(seconds)
    sums = Statistics(*sum((update.sums for update in timed), np.zeros(len(Statistics._fields))))
    return Rates(
        examples_per_second=ratio(sums.next_sentence_count, total),
        updates_per_second=ratio(len(seconds), total),
        tokens_per_second=ratio(sums.tokens, total),
        padding_share=ratio(sums.computed - sums.tokens, sums.computed),
        step_seconds_median=float(np.median(seconds)) if seconds else None,
        step_seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
        input_wait_share=ratio(sum(update.input_wait_seconds for update in timed), total),
    )
