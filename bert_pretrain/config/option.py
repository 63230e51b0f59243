"""A dataclass field that is also a flag, the groups in which flags are shown, and checks of their values."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

NO_EFFECT = "Accepted for compatibility, without effect here"


def option(
    default: Any, help: str, choices: Optional[Sequence[str]] = None, required: bool = False, no_effect: bool = False
) -> Any:
    """A dataclass field that is also a flag: default, help text, and the allowed words of an enumeration.

    required says that a run cannot start without the flag; no_effect that it exists for other programs' commands only.
    """
    metadata = {"help": help, "choices": choices, "required": required, "no_effect": no_effect}
    return dataclasses.field(default=default, metadata=metadata)


class Group(NamedTuple):
    """Flags that --help and docs/flags.md show together."""

    title: str
    fields: list[dataclasses.Field]


def groups(*config_classes: type) -> list[Group]:
    """A group for each dataclass, titled by its docstring, required flags first; flags without effect come last."""
    found = []
    for config_class in config_classes:
        fields = [field for field in dataclasses.fields(config_class) if not field.metadata["no_effect"]]
        fields.sort(key=lambda field: not field.metadata["required"])
        found.append(Group(config_class.__doc__.strip().rstrip("."), fields))
    idle = [f for part in config_classes for f in dataclasses.fields(part) if f.metadata["no_effect"]]
    return [*found, Group(NO_EFFECT, idle)] if idle else found


def require(condition: bool, message: str) -> None:
    """ValueError(message), one line for the user, unless the condition holds."""
    if not condition:
        raise ValueError(message)


def directories(comma_separated: str) -> list[str]:
    """'a, b' -> ['a', 'b'], with ~ expanded."""
    return [os.path.expanduser(part.strip()) for part in comma_separated.split(",") if part.strip()]
