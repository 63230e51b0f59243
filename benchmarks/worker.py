"""A worker's side of the protocol: one training job in one process, driven over its standard input and output.

README.md describes the protocol. Standard library only, so that a worker's memory is its framework's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from typing import Any, Callable, NamedTuple, Optional, Protocol

from benchmarks.settings import Settings


class Step(NamedTuple):
    """One update: reading its records, forward, backward, optimizer."""

    seconds: float
    examples: int
    loss: float  # mean of the micro-batches' losses
    useful_flops: Optional[float] = None  # without padding


class Evaluated(NamedTuple):
    """One evaluation of all examples: reading, forward, sums."""

    seconds: float
    examples: int
    metrics: dict[str, float]  # masked_lm_loss, masked_lm_accuracy, next_sentence_loss, next_sentence_accuracy


class Evaluation(Protocol):
    """One implementation that evaluates."""

    versions: dict[str, str]

    def warm_up(self) -> None:
        """Computes a batch."""

    def matmul_flops(self) -> Optional[float]:
        """As in Training."""

    def evaluate(self) -> Evaluated:
        """Evaluates all examples."""


class Training(Protocol):
    """One implementation at work."""

    versions: dict[str, str]

    def first_loss(self) -> float:
        """Loss of the first micro-batch of the first shard, dropout off, weights as they stand before any step."""

    def begin_turn(self) -> None:
        """Prepares a turn, the warm-up included."""

    def matmul_flops(self) -> Optional[float]:
        """May measure the machine's FLOP/s in matrix products; asked before and after each turn, the higher counts."""

    def step(self) -> Step:
        """Does one update."""


def timed(update: Callable[[], float], settings: Settings) -> Step:
    """Does one update, which returns its loss, and takes the time."""
    start = time.perf_counter()
    loss = update()
    seconds = time.perf_counter() - start
    return Step(seconds, settings.batch_size * settings.num_accumulation_steps, loss)


def serve(make: Callable[[Settings], Any], answer: Optional[Callable[[Any, dict], dict]] = None) -> None:
    """Builds the job that the settings file in argv[1] describes and answers requests until standard input ends.

    answer(job, request): what is answered to a request; by default that of a Training.
    """
    start = time.perf_counter()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever the libraries print goes to the log
    _offer_to_the_oom_killer()
    job = make(Settings.read(sys.argv[1]))
    _say(answers, startup_seconds=time.perf_counter() - start, versions=job.versions)
    for line in sys.stdin:
        _say(answers, **(answer or _answer_of_training)(job, json.loads(line)))


def answer_of_evaluation(evaluation: Evaluation, request: dict) -> dict:
    """To `{"do": "evaluate"}`: the seconds, examples and metrics of one evaluation, after a batch to warm up."""
    assert request["do"] == "evaluate", f"unknown request {request}"
    before = evaluation.matmul_flops()
    evaluation.warm_up()
    done = evaluation.evaluate()
    around = before and max(before, evaluation.matmul_flops())
    return {**done._asdict(), "matmul_flops": around, "peak_memory_bytes": _peak_memory_bytes()}


def _answer_of_training(training: Training, request: dict) -> dict:
    if request["do"] == "first_loss":
        return {"loss": training.first_loss()}
    assert request["do"] == "steps", f"unknown request {request}"
    training.begin_turn()
    before = training.matmul_flops()
    steps = [training.step() for _ in range(request["count"])]
    around = before and max(before, training.matmul_flops())
    return {"steps": steps, "matmul_flops": around, "peak_memory_bytes": _peak_memory_bytes()}


def _say(answers, **answer: object) -> None:
    answers.write(json.dumps(answer) + "\n")


def _offer_to_the_oom_killer() -> None:
    """Should memory run out, the machine is to end this process and not somebody's work."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
