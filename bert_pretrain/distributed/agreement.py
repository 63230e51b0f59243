"""What all ranks do together: an error on one rank ends all of them, and all must have the same job.

Work that may take minutes on some ranks, such as the first indexing, runs in a thread, while the ranks exchange short
messages: ranks that waited in one collective would be ended by Horovod's stall check.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Callable, Generic, NamedTuple, Optional, TypeVar, cast

from bert_pretrain.distributed.messages import exchanged
from bert_pretrain.distributed.stop import Interrupted
from bert_pretrain.distributed.world import World
from bert_pretrain.system.files import ReportBytes

T = TypeVar("T")

_INTERRUPTED = "stopped by a signal"  # instead of an error message
_SHOWN = 3  # differences in one line
_EXCHANGE_SECONDS = 0.5  # between two messages of ranks that wait for a long task
_LINE_SECONDS = 10.0  # between two lines that say how far it is


def on_all_ranks(world: World, function: Callable[[], T], names_rank: bool = True) -> T:
    """Returns function() of this rank. A collective: every rank must call it; function must not call another.

    Where function raises ValueError on any rank, rank 0 raises the first of them and the other ranks exit silently.
    Where a rank is asked to stop before its first update, all raise Interrupted.
    Without this, a rank that found an error would leave the others waiting in their first all-reduce. The message says
    which rank it comes from, unless all ranks have the same one or names_rank is false: the error is the job's.
    """
    result: Optional[T] = None
    message: Optional[str] = None
    try:
        with world.stop.abandoning():
            result = function()
    except ValueError as error:
        message = str(error)
    except Interrupted:
        message = _INTERRUPTED
    messages = world.allgather(_INTERRUPTED if world.stop.is_abandoned else message)
    if _INTERRUPTED in messages:
        raise Interrupted
    wrong = [rank for rank, found in enumerate(messages) if found is not None]
    if not wrong:
        return cast(T, result)  # this rank has no message either, so function has returned
    if not world.is_root:
        sys.exit(2)
    first = messages[wrong[0]]
    is_everywhere = len(wrong) == world.size and len(set(messages)) == 1
    raise ValueError(f"rank {wrong[0]} of {world.size}: {first}" if names_rank and not is_everywhere else first)


def end_if_stopped(world: World) -> None:
    """Raises Interrupted on all ranks where one was asked to stop before its first update. A collective."""
    on_all_ranks(world, lambda: None)


def from_root(world: World, function: Callable[[], T]) -> T:
    """Calls function() on rank 0 and returns its result on every rank; a ValueError ends all, as in on_all_ranks."""
    value = on_all_ranks(world, function if world.is_root else lambda: None, names_rank=False)
    return cast(T, world.broadcast(value))  # root's


# --- The same job everywhere ---


def comparable_facts(run: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Everything that must be the same on every rank, by the name under which a difference is reported.

    run is the content of run.json, shapes the model's variables.
    """
    facts = {f"--{name}": value for part in run["settings"].values() for name, value in part.items()}
    facts.update({f"model {name}": value for name, value in run["model"].items()})
    facts.update({f"variable {name}": shape for name, shape in shapes.items()})
    for kind, data in run["data"].items():
        names = ("records", "fingerprint", "vocabulary")
        facts.update({f"{kind} data's {name}": data[name] for name in names if name in data})
    facts.update({f"version of {name}": value for name, value in run["versions"].items()})
    return {**facts, **{name: run[name] for name in ("compute_dtype", "backend")}}


def check_same_facts(world: World, facts: dict[str, Any]) -> None:
    """Ends all ranks, as on_all_ranks, where a rank's facts differ from rank 0's. A collective."""
    gathered = world.allgather(facts)
    on_all_ranks(world, lambda: _compare_facts(gathered), names_rank=False)


def _compare_facts(gathered: Sequence[dict[str, Any]]) -> None:
    root, *others = gathered
    for rank, other in enumerate(others, start=1):
        names = [name for name in {**root, **other} if root.get(name) != other.get(name)]
        if names:
            shown = ", ".join(f"{name} ({other.get(name)!r}, rank 0 has {root.get(name)!r})" for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"rank {rank} differs from rank 0 in {shown}{more}; start every rank with the same settings, files "
                f"and versions"
            )


# --- Work that may take long ---


def long_task_on_all_ranks(world: World, function: Callable[[ReportBytes], T]) -> T:
    """on_all_ranks for a function that may take long: rank 0 prints every ten seconds how far it is."""
    task, next_line = _LongTask(function), time.monotonic() + _LINE_SECONDS
    must_end, unfinished = False, [world.rank]
    while unfinished and not must_end:
        wait([task.future], _EXCHANGE_SECONDS)
        is_done = task.future.done()
        has_failed = is_done and task.future.exception() is not None
        states = world.allgather((is_done, has_failed or world.stop.is_abandoned, task.progress))
        must_end = any(state[1] for state in states)
        unfinished = [rank for rank, state in enumerate(states) if not state[0]]
        if unfinished and world.is_root and time.monotonic() >= next_line:
            print(_progress_line([state[2] for state in states], unfinished), file=sys.stderr, flush=True)
            next_line += _LINE_SECONDS
    task.is_abandoned = True
    result = on_all_ranks(world, lambda: task.future.result() if task.future.done() else None)
    return cast(T, result)  # the loop ends while this rank is not done only where on_all_ranks raises


@exchanged
class _Progress(NamedTuple):
    """A rank's latest report."""

    what: str = "opening model and data"
    done: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


class _LongTask(Generic[T]):
    """A function that runs in a thread; it ends with the process, or at its next report once it was abandoned."""

    def __init__(self, function: Callable[[ReportBytes], T]) -> None:
        self.future: Future[T] = Future()
        self.progress = _Progress()
        self.is_abandoned = False
        threading.Thread(target=self._run, args=[function], name="long task", daemon=True).start()

    def _run(self, function: Callable[[ReportBytes], T]) -> None:
        try:
            self.future.set_result(function(self._report))
        except BaseException as error:  # SystemExit, too: the other ranks must hear of every end
            self.future.set_exception(error)

    def _report(self, what: str, done: int, total: int) -> None:
        if self.is_abandoned:
            sys.exit()
        self.progress = _Progress(what, done, total)


def _progress_line(progress: Sequence[_Progress], unfinished: Sequence[int]) -> str:
    slowest = min(unfinished, key=lambda rank: progress[rank].share)
    what, done, total = progress[slowest]
    unit, divisor = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    amount = f": {done / divisor:.1f} of {total / divisor:.1f} {unit}" if total else ""
    return f"{what}{amount}" + (f" (rank {slowest}, the slowest)" if len(progress) > 1 else "")
