"""A dataclass field that is also a flag, the groups in which flags are shown, and checks of their values."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from bert_pretrain.system.files import is_url

NO_EFFECT = "Accepted for compatibility, without effect here"
MAX_SEQ_LENGTH = 65_535  # tokens in a record
MAX_PROCESSES = 1024

_INT32 = 2**31 - 1
_FLOAT32 = 1.1754944e-38, 3.4028234e38  # the smallest (TensorFlow takes even smaller ones as 0) and largest float32


def option(
    default: Any,
    help: str,
    choices: Optional[Sequence[str]] = None,
    required: bool = False,
    no_effect: bool = False,
    is_path: bool = False,
    takes_url: bool = False,
    is_fetched: bool = False,
) -> Any:
    """A dataclass field that is also a flag: default, help text, and the allowed words of an enumeration.

    required says that a run cannot start without the flag; no_effect that it exists for other programs' commands only;
    is_path that it is a path, or several separated by commas; takes_url that such a path may be a URL; is_fetched that
    what a URL names is copied to a local disk before it is used.
    """
    metadata = {"help": help, "choices": choices, "required": required, "no_effect": no_effect, "is_path": is_path}
    metadata.update(takes_url=takes_url or is_fetched, is_fetched=is_fetched)
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


def require_numbers(settings: Any) -> None:
    """ValueError for a number that float32 or int32 cannot hold, inf and nan among them; seeds may be any integer."""
    smallest, largest = _FLOAT32
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, float):
            require(
                value == 0 or smallest <= abs(value) <= largest,
                f"--{field.name} must be a finite number that float32 can hold, got {value}",
            )
        elif isinstance(value, int) and not field.name.endswith("seed"):
            require(abs(value) <= _INT32, f"--{field.name} must be at most {_INT32} in magnitude, got {value}")


def require_one_line(name: str, value: str) -> None:
    """ValueError, naming the flag `name`, for a control character: messages quote values, and each is one line."""
    found = next((c for c in value if unicodedata.category(c) in ("Cc", "Zl", "Zp")), None)
    require(found is None, f"--{name} holds the control character {found!r}; give it without line breaks")


def local_paths(name: str, paths: str, takes_url: bool = False) -> str:
    """'~/a,~b/c,file:///d' -> '/home/me/a,/home/b/c,/d', paths that open() takes.

    ValueError, naming the flag `name`, where there is no such user, and for another URL unless takes_url.
    """
    return ",".join(_local_path(name, path, takes_url) for path in paths.split(","))


def _local_path(name: str, path: str, takes_url: bool) -> str:
    bare = path.lstrip()
    if bare.startswith("~"):
        path = os.path.expanduser(bare)
        require(path[0] != "~", f"--{name}: {path}: no such user; for a file of that name write ./{path}")
    elif bare.lower().startswith("file://"):
        path = bare[len("file://") :]
        require(path.startswith("/"), f"--{name}: {bare}: not a local file; write file:///PATH with three slashes")
    elif is_url(bare):
        require(takes_url, f"--{name}: {bare} is a URL; it must be a local path")
    return path


def directories(comma_separated: str) -> list[str]:
    """'a, b' -> ['a', 'b']."""
    return [part.strip() for part in comma_separated.split(",") if part.strip()]
