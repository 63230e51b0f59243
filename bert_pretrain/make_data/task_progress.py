"""Runs tasks over text in several processes, and shows bytes of text done, results so far and the time left."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from tqdm import tqdm

from bert_pretrain.system import worker_pool
from bert_pretrain.system.worker_pool import Piece, Result, WorkFunction

_LOG_SECONDS = 10  # between lines of progress where there is no terminal


class Progress(NamedTuple):
    """What a task has done since its previous report."""

    share: float  # of its text
    results: int = 0  # examples or documents


ReportProgress = Callable[[Progress], None]  # how a task tells it


def run_tasks(
    workers: worker_pool.Workers,
    work: WorkFunction[Piece, Progress, Result],
    pieces: Sequence[Piece],
    sizes: Sequence[int],
    num_all: int,
    on_result: Optional[Callable[[Result], None]] = None,
    unit: str = "examples",
) -> list[Result]:
    """Runs the tasks, the largest first, and returns their results as they are finished.

    With on_result, it gets the results instead, in the order of the pieces. `unit` names the results of Progress.
    """
    order = sorted(range(len(pieces)), key=lambda piece: -sizes[piece]) if on_result is None else [*range(len(pieces))]
    if num_all > len(pieces):
        print(f"{num_all - len(pieces)} of {num_all} were finished before and are kept", file=sys.stderr)
    results: list[Result] = []
    waiting: dict[int, Result] = {}  # for on_result: results that come before their turn
    num_passed_on = 0
    with _Bar([sizes[piece] for piece in order], unit) as bar:

        def finish(number: int, result: Result) -> None:
            nonlocal num_passed_on
            if on_result is None:
                results.append(result)
            else:
                waiting[number] = result
                while num_passed_on in waiting:
                    on_result(waiting.pop(num_passed_on))
                    num_passed_on += 1
            bar.finish(number)

        workers.run(work, [pieces[piece] for piece in order], bar.progress, finish)
    return results


class _Bar:
    """A bar on a terminal, else its line from time to time."""

    def __init__(self, sizes: list[int], unit: str) -> None:
        self._left, self._sizes, self._unit = list(sizes), sizes, unit
        self._num_finished = self._num_results = 0
        self._on_terminal = sys.stderr.isatty()
        # Without a terminal, the line that tqdm formats is printed from time to time.
        file = sys.stderr if self._on_terminal else io.StringIO()
        self._tqdm = tqdm(total=sum(sizes), unit="B", unit_scale=True, file=file)
        self._last_line = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def progress(self, number: int, progress: Progress) -> None:
        """A task has done so much more."""
        self._num_results += progress.results
        self._advance(number, min(self._left[number], int(progress.share * self._sizes[number])))

    def finish(self, number: int) -> None:
        """A task is finished."""
        self._num_finished += 1
        self._advance(number, self._left[number])

    def _advance(self, number: int, num_bytes: int) -> None:
        self._left[number] -= num_bytes
        results = f", {self._num_results:,} {self._unit}" if self._num_results else ""
        state = f"{self._num_finished} of {len(self._sizes)} done{results}"
        self._tqdm.set_postfix_str(state, refresh=False)
        self._tqdm.update(num_bytes)
        if not self._on_terminal and time.monotonic() - self._last_line > _LOG_SECONDS:
            self._last_line = time.monotonic()
            print(self._tqdm, file=sys.stderr, flush=True)
