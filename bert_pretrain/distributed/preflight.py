"""Checks before the first update: all ranks must have the same job, and an error on one rank ends all of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from bert_pretrain.distributed.stop import Interrupted
from bert_pretrain.distributed.world import World

T = TypeVar("T")

_INTERRUPTED = "stopped by a signal"  # instead of an error message
_SHOWN = 3  # differences in one line


def on_all_ranks(world: World, function: Callable[[], T], root_only: bool = False) -> T:
    """Returns function() of this rank. A collective: every rank must call it; function must not call another.

    Where function raises ValueError on any rank, rank 0 raises the first of them and the other ranks exit silently.
    Where a rank is asked to stop before its first update, all raise Interrupted.
    Without this, a rank that found an error would leave the others waiting in their first all-reduce. root_only says
    that function does nothing on the other ranks, so that the message needs no rank.
    """
    result, message = None, None
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
        return result
    if not world.is_root:
        sys.exit(2)
    first = messages[wrong[0]]
    everywhere = len(wrong) == world.size and len(set(messages)) == 1
    raise ValueError(first if everywhere or root_only else f"rank {wrong[0]} of {world.size}: {first}")


def end_if_stopped(world: World) -> None:
    """Raises Interrupted on all ranks where one was asked to stop before its first update. A collective."""
    on_all_ranks(world, lambda: None)


def from_root(world: World, function: Callable[[], T]) -> T:
    """Calls function() on rank 0 and returns its result on every rank; a ValueError ends all, as in on_all_ranks."""
    return world.broadcast(on_all_ranks(world, function if world.is_root else lambda: None, root_only=True))


def check_same(world: World, facts: dict[str, Any]) -> None:
    """ValueError that names rank and difference, where a rank's facts differ from rank 0's. A collective."""
    root, *others = world.allgather(facts)
    for rank, other in enumerate(others, start=1):
        names = [name for name in {**root, **other} if root.get(name) != other.get(name)]
        if names:
            shown = ", ".join(f"{name} ({other.get(name)!r}, rank 0 has {root.get(name)!r})" for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"rank {rank} differs from rank 0 in {shown}{more}; start every rank with the same settings, files "
                f"and versions"
            )


def comparable(run: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
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
