"""Before the first update: ranks compare what they are about to do, and bad input on any of them ends all."""

from __future__ import annotations

import sys
from typing import Any, Callable, TypeVar

from bert_pretrain.world import World

T = TypeVar("T")


def together(world: World, prepare: Callable[[], T]) -> T:
    """prepare() on every rank; where it raises ValueError on any, root raises the first and the others leave quietly.

    Without this a rank that found an error would leave the rest waiting in their first exchange.
    """
    result, message = None, None
    try:
        result = prepare()
    except ValueError as error:
        message = str(error)
    messages = world.gather(message)
    wrong = [rank for rank, found in enumerate(messages) if found is not None]
    if not wrong:
        return result
    if not world.is_root:
        sys.exit(2)
    everywhere = len(wrong) == world.size and len(set(messages)) == 1
    raise ValueError(messages[0] if everywhere else f"rank {wrong[0]} of {world.size}: {messages[wrong[0]]}")


def check_alike(world: World, facts: dict[str, Any]) -> None:
    """ValueError, naming the rank and the item, where a rank's facts differ from root's."""
    root, *others = world.gather(facts)
    for rank, other in enumerate(others, start=1):
        for name in sorted(set(root) | set(other)):
            if root.get(name) != other.get(name):
                raise ValueError(
                    f"rank {rank} differs from rank 0 in {name}: {other.get(name)!r} against {root.get(name)!r}; "
                    f"start every rank with the same settings, files and versions"
                )
