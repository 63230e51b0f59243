"""What the settings' dataclasses are made of: a field that is also a flag, and the check that speaks to a person."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Optional


def option(default: Any, help: str, choices: Optional[Sequence[str]] = None) -> Any:
    """A dataclass field that is also a flag: its default, help text and, for an enumeration, the allowed words."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def require(condition: bool, message: str) -> None:
    """Raises ValueError(message), the person's one line, unless the condition holds."""
    if not condition:
        raise ValueError(message)


def directories(comma_separated: str) -> list[str]:
    """'a, b' -> ['a', 'b'], with ~ expanded."""
    return [os.path.expanduser(part.strip()) for part in comma_separated.split(",") if part.strip()]
