"""Work that may take minutes on some ranks, such as the first indexing, while the others wait.

Ranks that waited in one collective would be ended by Horovod's stall check. So each rank works in a thread, and the
ranks exchange short messages until all have finished.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Callable, NamedTuple, TypeVar

from bert_pretrain.distributed import preflight
from bert_pretrain.distributed.world import World

T = TypeVar("T")
Report = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all

_EXCHANGE_SECONDS = 0.5
_LINE_SECONDS = 10.0


class _Progress(NamedTuple):
    """A rank's latest report."""

    what: str = "opening model and data"
    done: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


class _Task:
    """A function that runs in a thread; it ends with the process, or at its next report once it was abandoned."""

    def __init__(self, function: Callable[[Report], T]) -> None:
        self.future: Future = Future()
        self.progress = _Progress()
        self.is_abandoned = False
        threading.Thread(target=self._run, args=[function], name="long task", daemon=True).start()

    def _run(self, function: Callable[[Report], T]) -> None:
        try:
            self.future.set_result(function(self._report))
        except BaseException as error:  # SystemExit, too: the other ranks must hear of every end
            self.future.set_exception(error)

    def _report(self, what: str, done: int, total: int) -> None:
        if self.is_abandoned:
            sys.exit()
        self.progress = _Progress(what, done, total)


def on_all_ranks(world: World, function: Callable[[Report], T]) -> T:
    """preflight.on_all_ranks for a function that may take long: rank 0 prints every ten seconds how far it is."""
    task, next_line = _Task(function), time.monotonic() + _LINE_SECONDS
    must_end, unfinished = False, [world.rank]
    while unfinished and not must_end:
        wait([task.future], _EXCHANGE_SECONDS)
        is_done = task.future.done()
        has_failed = is_done and task.future.exception() is not None
        states = world.allgather((is_done, has_failed or world.stop.is_abandoned, task.progress))
        must_end = any(state[1] for state in states)
        unfinished = [rank for rank, state in enumerate(states) if not state[0]]
        if unfinished and world.is_root and time.monotonic() >= next_line:
            print(_line([state[2] for state in states], unfinished), file=sys.stderr, flush=True)
            next_line += _LINE_SECONDS
    task.is_abandoned = True
    return preflight.on_all_ranks(world, lambda: task.future.result() if task.future.done() else None)


def _line(progress: Sequence[_Progress], unfinished: Sequence[int]) -> str:
    slowest = min(unfinished, key=lambda rank: progress[rank].share)
    what, done, total = progress[slowest]
    unit, divisor = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    amount = f": {done / divisor:.1f} of {total / divisor:.1f} {unit}" if total else ""
    return f"{what}{amount}" + (f" (rank {slowest}, the slowest)" if len(progress) > 1 else "")
