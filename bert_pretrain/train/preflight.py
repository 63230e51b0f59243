"""Before the first update: ranks compare what they are about to do, and bad input on any of them ends all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from bert_pretrain.world import World

T = TypeVar("T")

_SHOWN = 3  # differences in one line


def together(world: World, prepare: Callable[[], T], root_only: bool = False) -> T:
    """prepare() on every rank; where it raises ValueError on any, root raises the first and the others leave quietly.

    Without this a rank that found an error would leave the rest waiting in their first exchange.
    """
    result, message = None, None
    try:
        result = prepare()
    except ValueError as error:
        message = str(error)
    messages = world.allgather(message)
    wrong = [rank for rank, found in enumerate(messages) if found is not None]
    if not wrong:
        return result
    if not world.is_root:
        sys.exit(2)
    first = messages[wrong[0]]
    everywhere = len(wrong) == world.size and len(set(messages)) == 1
    raise ValueError(first if everywhere or root_only else f"rank {wrong[0]} of {world.size}: {first}")


def of_root(world: World, find: Callable[[], T]) -> T:
    """find()'s result at root, on every rank; where it raises ValueError there, all end as in `together`."""
    return world.broadcast(together(world, find if world.is_root else lambda: None, root_only=True))


def check_alike(world: World, facts: dict[str, Any]) -> None:
    """ValueError, naming the rank and what differs, where a rank's facts differ from root's. A collective."""
    root, *others = world.allgather(facts)
    for rank, other in enumerate(others, start=1):
        names = [name for name in {**root, **other} if root.get(name) != other.get(name)]
        if names:
            shown = ", ".join(f"{name} ({other.get(name)!r}, there {root.get(name)!r})" for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"rank {rank} differs from rank 0 in {shown}{more}; start every rank with the same settings, files "
                f"and versions"
            )


def alike(run: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What must be the same on every rank, by the name under which a difference is reported.

    run is the content of run.json, shapes are the model's variables.
    """
    facts = {f"--{name}": value for part in run["settings"].values() for name, value in part.items()}
    facts.update({f"model {name}": value for name, value in run["model"].items()})
    facts.update({f"variable {name}": shape for name, shape in shapes.items()})
    for kind, data in run["data"].items():
        facts.update({f"{kind} data's {name}": data[name] for name in ("records", "fingerprint")})
    facts.update({f"version of {name}": value for name, value in run["versions"].items()})
    return {**facts, **{name: run[name] for name in ("compute_dtype", "backend")}}
