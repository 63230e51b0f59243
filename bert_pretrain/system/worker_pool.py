"""Runs independent tasks in processes of this machine, or in the ranks of an mpirun.

A worker gets its next task when it has finished one, so a slow task does not delay the others. Results do not depend on
the number of workers.
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
from types import FrameType
from typing import Any, Callable, Optional, TypeVar, cast

from bert_pretrain.system import processes
from bert_pretrain.system.console import log

_POLL_SECONDS = 0.5

ReportProgress = Callable[[float], None]  # a task calls it with the share that it has done since the previous call

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Done = TypeVar("Done")  # what a task reports: its share, or what its on_progress understands
WorkFunction = Callable[[Piece, Callable[[Done], None]], Result]

_reports: Any = None  # in a worker process: the queue to its parent
_stopped_by = 0  # the number of the signal that asked this process to stop


@contextlib.contextmanager
def worker_processes(num_processes: int) -> Iterator[Optional[Workers]]:
    """Workers: under mpirun the other ranks, else num_processes processes; this process alone if that is 1.

    Ranks other than 0 run tasks inside this and get None when all are done. A signal that asks to stop raises
    SystemExit here and in a worker, so that incomplete files are removed.
    """
    with processes.handling_signals(_exit_on_signal), _workers(num_processes) as found:
        yield found


@contextlib.contextmanager
def _workers(num_processes: int) -> Iterator[Optional[Workers]]:
    if (processes.launched_size() or 1) > 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tasks run in parallel already
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as entered:
            executor = cast(Optional[Executor], entered)  # an MPIPoolExecutor on rank 0, whatever mpi4py's stub says
            yield None if executor is None else Workers(executor, None)
    elif num_processes > 1:
        # spawn, not fork: a lock that another thread holds would stay locked in the child.
        context = multiprocessing.get_context("spawn")
        try:  # semaphores, in /dev/shm
            reports = context.SimpleQueue()
            executor = ProcessPoolExecutor(num_processes, context, _begin_worker, (reports,))
        except OSError as error:
            log.warning(
                f"note: this process works alone instead of {num_processes}: no semaphore can be made in /dev/shm "
                f"({error.strerror})"
            )
            yield Workers(None, None)
            return
        try:
            yield Workers(executor, reports)
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            executor.shutdown()
    else:
        yield Workers(None, None)


class Workers:
    """Runs tasks."""

    def __init__(self, executor: Optional[Executor], reports: Any) -> None:
        self._executor, self._reports = executor, reports

    def run(
        self,
        work: WorkFunction[Piece, Done, Result],
        pieces: Sequence[Piece],
        on_progress: Callable[[int, Done], object],
        on_result: Callable[[int, Result], object],
    ) -> None:
        """Calls work(piece, report) for each piece, on_progress(number, share) and on_result(number, result).

        What these two return is not used.

        Raises what work raised, and ValueError where a worker process was killed.
        """
        if self._executor is None:
            for number, piece in enumerate(pieces):

                def report(done: Done, number: int = number) -> None:
                    on_progress(number, done)

                on_result(number, work(piece, report))
            return
        futures = {self._executor.submit(_call, work, piece, number): number for number, piece in enumerate(pieces)}
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                while self._reports is not None and not self._reports.empty():
                    on_progress(*self._reports.get())
                for future in finished:
                    on_result(futures.pop(future), future.result())  # a result is not kept here
        except BrokenProcessPool:
            if _stopped_by:
                sys.exit(128 + _stopped_by)
            raise ValueError(
                "a worker process was killed, perhaps because memory ran out; finished outputs are kept: "
                "run the same command again with a smaller --num_processes"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _call(work: WorkFunction[Piece, Done, Result], piece: Piece, number: int) -> Result:
    if _stopped_by:  # the executor would start the next task after the one that was ended
        sys.exit(1)

    def report(done: Done) -> None:
        if _reports is not None:
            _reports.put((number, done))

    try:
        return work(piece, report)
    except SystemExit:
        if _stopped_by and _reports is not None:
            os._exit(128 + _stopped_by)  # the executor would keep this exception and wait for the next task
        raise


def _begin_worker(reports: Any) -> None:
    global _reports
    _reports = reports
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for number in processes.heeded_signals():
        signal.signal(number, _exit_on_signal)


def _exit_on_signal(number: int, frame: Optional[FrameType]) -> None:
    global _stopped_by
    if _stopped_by:  # by a signal to the whole process group; this one, the parent's, must not end the cleaning up
        return
    _stopped_by = number
    sys.exit(128 + number)
