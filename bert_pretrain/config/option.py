"""A dataclass field that is also a flag, all that is known of a flag, and checks of values.

What is known of a flag stands once, at its option(). From there follow the flags themselves (cli.py), docs/flags.md,
what a resumed run allows (run_files/run_json.py), refused_update-N.json (train/replay.py), the notices at a start
(train/plan.py), and the flags of scripts/pretrain_text.sh.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional, TypeVar, Union

from bert_pretrain.system.files import is_url, split_names

T = TypeVar("T")

NO_EFFECT = "Accepted for compatibility, without effect here"
# An environment variable with which a script says where the flags of a step come from: JSON, argument -> origin.
FLAG_ORIGINS = "BERT_PRETRAIN_FLAG_ORIGINS"
MAX_SEQ_LENGTH = 65_535  # tokens in a record
MAX_PROCESSES = 1024

_INT32 = 2**31 - 1
_FLOAT32 = 1.1754944e-38, 3.4028234e38  # the smallest (TensorFlow takes even smaller ones as 0) and largest float32


class OnResume(enum.Enum):
    """What a change of a flag does when a run goes on; a line says so."""

    AT_ONCE = "applies from the next update on"
    MASKS = "applies to the masks that --dynamic_masking draws from the next update on"
    INVARIANT = "the same examples and, to rounding, the same sums, with other dropout masks"
    MICRO_BATCHES = "refused where it changes the number of micro-batches of an update under --rank_invariant"
    RATE = "the learning rate follows the new schedule from the next update on"
    BATCH = "the size of an update changes, or its division; a line says where the data continue"
    UNUSED = "without effect: the run continues its own checkpoint"
    CHECKED = "data and model are compared with those of the previous start, wherever they are"
    NONE = "without effect on a run"
    ROUNDING = "the same update, up to rounding"
    EVALUATION = "applies to the evaluations that follow"
    REPORTS = "changes what is written, not what is trained"
    MLPERF = "without effect: MLPerf's log of a run ends with its first start"
    HOSTS = "decides when a silent host ends the job, not what is trained"


class RefusedOnResume(NamedTuple):
    """A change that contradicts the checkpoint. With the setting `not_with` it applies at once instead."""

    reason: str
    not_with: Optional[tuple[str, Any]] = None  # another flag of the same dataclass, and its value

    def applies_to(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings, of the flag's dataclass, refuses the change."""
        return self.not_with is None or settings[self.not_with[0]] != self.not_with[1]


class Needs(NamedTuple):
    """A flag without which another has no effect."""

    flag: str
    because: str


@dataclasses.dataclass(frozen=True)
class FlagFacts:
    """All that is known of a flag beside its name, type and default."""

    help: str
    choices: Optional[tuple[str, ...]] = None  # the allowed words of an enumeration
    required: bool = False  # a run cannot start without it; its default is the empty string
    no_effect: bool = False  # it exists for other programs' commands only
    is_path: bool = False
    is_list: bool = False  # of paths, separated by commas; one that exists as it stands is itself, with its commas
    takes_url: bool = False  # such a path may be a URL
    is_fetched: bool = False  # what a URL names is copied to a local disk before it is used
    old_name: Optional[str] = None  # is still taken, from command lines, flagfiles and an older run.json
    needs: Optional[Needs] = None
    on_resume: Union[OnResume, RefusedOnResume, None] = None  # every flag of bert_pretrain.run has it
    of_update: bool = False  # it decides which records, masks, rows and dropout masks an update has
    set_by_script: bool = False  # scripts/pretrain_text.sh sets it itself, or it makes no sense there


def option(default: T, help: str, choices: Optional[Sequence[str]] = None, **facts: Any) -> T:
    """A dataclass field that is also a flag: its default, its help, its choices, and other FlagFacts.

    As with dataclasses.field, the result has the type of the field for type checkers.
    """
    if facts.get("is_fetched"):
        facts["takes_url"] = True
    known = FlagFacts(help, tuple(choices) if choices else None, **facts)
    return dataclasses.field(default=default, metadata={"facts": known})


def facts_of(field: dataclasses.Field[Any]) -> FlagFacts:
    """What option() says of a field."""
    return field.metadata["facts"]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default that option() gave a field."""
    assert field.default is not dataclasses.MISSING, f"{field.name} is no option()"
    return field.default


def options_of(*config_classes: type) -> Iterator[tuple[dataclasses.Field[Any], FlagFacts]]:
    """Every flag of the dataclasses."""
    for config_class in config_classes:
        yield from ((field, facts_of(field)) for field in dataclasses.fields(config_class))


class Group(NamedTuple):
    """Flags that --help and docs/flags.md show together."""

    title: str
    fields: list[dataclasses.Field[Any]]


def flag_groups(*config_classes: type) -> list[Group]:
    """A group for each dataclass, titled by its docstring, required flags first; flags without effect come last."""
    found = []
    for config_class in config_classes:
        fields = [field for field, facts in options_of(config_class) if not facts.no_effect]
        fields.sort(key=lambda field: not facts_of(field).required)
        found.append(Group((config_class.__doc__ or "").strip().rstrip("."), fields))
    idle = [field for field, facts in options_of(*config_classes) if facts.no_effect]
    return [*found, Group(NO_EFFECT, idle)] if idle else found


def with_origins(message: str, origins: Mapping[str, str]) -> str:
    """A message that says, of the flags that it names, where those come from that the user's command does not have."""
    named = dict.fromkeys(re.findall(r"(?<![\w-])--(?:no)?(\w+)", message))
    parts = [f"--{name} comes from {origins[name]}" for name in named if name in origins]
    return f"{message} ({', '.join(parts)})" if parts else message


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
    """'~/a,~b/c,file:///d' -> '/home/me/a,/home/b/c,/d': local_path of each in a list. A name that exists stays."""
    return ",".join(path if os.path.lexists(path) else local_path(name, path, takes_url) for path in split_names(paths))


def local_path(name: str, path: str, takes_url: bool = False) -> str:
    """'~/a' -> '/home/me/a', 'file:///d' -> '/d': a path that open() takes.

    ValueError, naming the flag `name`, where there is no such user, and for another URL unless takes_url.
    """
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
