"""Independent pieces of work over the processes of one machine, or over the ranks of an mpirun.

Pieces are handed out one by one as workers become free, so that a slow one does not hold up the rest. Nothing here
decides what a piece is or makes, so that results do not depend on the number of workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Optional

_POLL_SECONDS = 0.5

Report = Callable[[float], None]  # called by a piece of work with the share of it that it has done since the last call
Work = Callable[[Any, Report], Any]

_reports: Any = None  # in a worker process: the queue to its parent
_is_stopping = False  # this process was told to end


def num_ranks() -> int:
    """Ranks that mpirun started, 1 without it."""
    return max(int(os.environ.get(name, "1")) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def workers(num_processes: int) -> Iterator[Optional[Workers]]:
    """Workers: the other ranks under mpirun, else num_processes processes, or this one alone.

    Ranks other than 0 work inside this and get None when there is nothing left to do. SIGTERM ends work by an
    exception, so that half-written files are removed on the way out.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with _workers(num_processes) as found:
            yield found
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _workers(num_processes: int) -> Iterator[Optional[Workers]]:
    if num_ranks() > 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pieces are what is parallel
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
            yield None if executor is None else Workers(executor, None)
    elif num_processes > 1:
        # Not forked: this process may run threads, and a lock they hold would stay locked in a copy.
        context = multiprocessing.get_context("spawn")
        reports = context.SimpleQueue()
        executor = ProcessPoolExecutor(num_processes, context, _begin_worker, (reports,))
        try:
            yield Workers(executor, reports)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            executor.shutdown()
    else:
        yield Workers(None, None)


class Workers:
    """Does pieces of work."""

    def __init__(self, executor: Optional[Executor], reports: Any) -> None:
        self._executor, self._reports = executor, reports

    def run(
        self,
        work: Work,
        pieces: Sequence[Any],
        on_progress: Callable[[int, float], None],
        on_result: Callable[[int, Any], None],
    ) -> None:
        """Calls work(piece, report) for each piece; says which has progressed by which share, and what came of it.

        Raises what a piece of work raised, and ValueError where a worker process was killed.
        """
        if self._executor is None:
            for number, piece in enumerate(pieces):
                on_result(number, work(piece, lambda share, number=number: on_progress(number, share)))
            return
        futures = {self._executor.submit(_call, work, piece, number): number for number, piece in enumerate(pieces)}
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                while self._reports is not None and not self._reports.empty():
                    on_progress(*self._reports.get())
                for future in finished:
                    on_result(futures[future], future.result())
        except BrokenProcessPool:
            raise ValueError(
                "a worker process was killed, perhaps for want of memory; what is finished is kept: "
                "give the same command again, with a smaller --num_processes"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _call(work: Work, piece: Any, number: int) -> Any:
    if _is_stopping:  # the library would start the next piece after the one that ended early
        sys.exit(1)

    def report(share: float) -> None:
        if _reports is not None:
            _reports.put((number, share))

    return work(piece, report)


def _begin_worker(reports: Any) -> None:
    global _reports
    _reports = reports
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: Any) -> None:
    global _is_stopping
    _is_stopping = True
    sys.exit(128 + number)
