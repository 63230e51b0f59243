"""Dataclass fields <-> absl flags. Only this module imports absl; entry points call `define`, `read` and `main`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import json
import os
import shutil
import sys
import textwrap
import traceback
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from absl import app, flags

from bert_pretrain.config import make_data, training
from bert_pretrain.config.option import (
    FLAG_ORIGINS,
    default_of,
    facts_of,
    flag_groups,
    local_path,
    local_paths,
    options_of,
    require_one_line,
    with_origins,
)
from bert_pretrain.config.retired_flags import RETIRED_FLAGS
from bert_pretrain.system import streams

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_SIMILAR = 0.75  # at least, of a flag that may have been meant
_NO_OTHERS: Mapping[str, str] = MappingProxyType({})
_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")
_LIMITS = {
    errno.EMFILE: "the number of open files is limited, perhaps by ulimit -n",
    errno.ENFILE: "the number of this machine's open files is limited",
    errno.EAGAIN: "the number of processes and threads is limited, perhaps by ulimit -u or the container",
    errno.ENOMEM: "memory is limited, perhaps by ulimit -v or the container",
}
_defined: list[type] = []  # the dataclasses whose fields are flags, in the order of --help
_origins: dict[str, str] = {}  # of this command's flags, once they are parsed


def define_flags(*config_classes: type) -> None:
    """Registers one flag per field of the dataclasses, with the field's name, type, default and help."""
    for config_class in config_classes:
        types = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            _define_flag(field, types[field.name], flags.FLAGS)
    _defined.extend(config_classes)


def _define_flag(field: dataclasses.Field[Any], annotation: Any, values: flags.FlagValues) -> None:
    facts, plain = facts_of(field), _plain_type(annotation)
    default, help_text, choices = default_of(field), facts.help, facts.choices
    if choices:
        flags.DEFINE_enum(field.name, default, list(choices), help_text, case_sensitive=False, flag_values=values)
    elif plain is bool:
        flags.DEFINE_bool(field.name, default, help_text, flag_values=values)
    elif plain is int:
        flags.DEFINE_integer(field.name, default, help_text, flag_values=values)
    elif plain is float:
        flags.DEFINE_float(field.name, default, help_text, flag_values=values)
    else:
        assert plain is str, f"no flag type for {field.name}: {annotation}"
        flags.DEFINE_string(field.name, default, help_text, flag_values=values)
    if facts.old_name:
        flags.DEFINE_alias(facts.old_name, field.name, flag_values=values)


def _plain_type(annotation: Any) -> Any:
    """T of Optional[T], and T of T."""
    return next((t for t in typing.get_args(annotation) if t is not type(None)), annotation)


def read_settings(config_class: type[T]) -> T:
    """An instance of the dataclass, filled from the parsed flags, with ~ expanded in paths.

    ValueError for ~nobody, for a URL where none is taken, and for a value that holds a line break or another control
    character.
    """
    return _filled(config_class, flags.FLAGS)


def read_flagfile(path: str, config_classes: Sequence[type]) -> list[Any]:
    """An instance of each dataclass, filled from a flagfile alone. ValueError, one line, if it has other flags."""
    values = _defined_apart(config_classes)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file")
    try:
        rest = values(["", *values.read_flags_from_files([f"--flagfile={path}"])])
    except (flags.Error, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path}: {_error_text(error, config_classes)}") from None
    if len(rest) > 1:
        raise ValueError(f"{path}: unexpected argument {rest[1]!r}; settings are given as --name=value")
    return [_filled(config_class, values) for config_class in config_classes]


def read_arguments(arguments: Sequence[str], config_classes: Sequence[type], has_others: bool = True) -> list[Any]:
    """An instance of each dataclass, filled from a command line for another process; other flags are left out.

    ValueError, one line, for an invalid value, and for another flag unless has_others.
    """
    values = _defined_apart(config_classes)
    try:
        values(["", *values.read_flags_from_files(list(arguments))], known_only=has_others)
    except (flags.Error, UnicodeDecodeError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    return [_filled(config_class, values) for config_class in config_classes]


def _defined_apart(config_classes: Sequence[type]) -> flags.FlagValues:
    """The flags of dataclasses, apart from this program's own."""
    values = flags.FlagValues()
    for config_class in config_classes:
        types = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            _define_flag(field, types[field.name], values)
    return values


def _filled(config_class: type[T], values: flags.FlagValues) -> T:
    return config_class(**{field.name: _value(field, values) for field in dataclasses.fields(config_class)})


def _value(field: dataclasses.Field[Any], values: flags.FlagValues) -> Any:
    value = getattr(values, field.name)
    if isinstance(value, str):
        require_one_line(field.name, value)
    if not value or not facts_of(field).is_path:
        return value
    facts = facts_of(field)
    return (local_paths if facts.is_list else local_path)(field.name, value, facts.takes_url)


def explicit_flags(*config_classes: type) -> frozenset[str]:
    """Names of the dataclasses' flags that the command line or a flagfile set."""
    return frozenset(
        field.name
        for field, facts in options_of(*config_classes)
        if any(flags.FLAGS[name].present for name in (field.name, facts.old_name) if name)
    )


def flag_origins() -> dict[str, str]:
    """Flag -> the file or variable that set it, for those that the command line of the user did not set."""
    return dict(_origins)


def run_command(
    run: Callable[..., int],
    description: Optional[str] = None,
    takes_arguments: bool = False,
    others: Mapping[str, str] = _NO_OTHERS,
) -> None:
    """Parses the flags, runs an entry point and exits. A ValueError becomes one line on stderr and exit code 2.

    The line says of the flags that it names where they come from, unless that is the command line. description: the
    first lines of --help. takes_arguments: run(arguments) receives what is no flag; else run() is called, and an
    argument that is no flag is an error. others: flag that this command does not have -> what is said of it.
    """

    def guarded(arguments: Sequence[str]) -> int:
        try:
            if takes_arguments:
                return run(arguments[1:])
            if len(arguments) > 1:
                raise ValueError(f"unexpected argument {arguments[1]!r}; settings are given as --name=value")
            return run()
        except ValueError as error:
            if "verbose_logging" in flags.FLAGS and flags.FLAGS.verbose_logging:
                traceback.print_exc()
            print(f"error: {with_origins(str(error), _origins)}", file=sys.stderr)
            return 2
        except (OSError, RuntimeError, MemoryError) as error:
            limit = _limit(error)
            if limit is None:
                raise
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            print(f"error: {reason}; {limit}", file=sys.stderr)
            return 1

    streams.secure_streams()
    flags.FLAGS.set_gnu_getopt(takes_arguments)  # flags may follow arguments
    # absl prints flag errors without a traceback, but with exit code 1; invalid input is 2 everywhere here.
    app.run(guarded, flags_parser=lambda arguments: _parse(arguments, description, others))


def _limit(error: Exception) -> Optional[str]:
    """Which limit of the machine or container an error comes from; None where it is no limit's."""
    if isinstance(error, RuntimeError):  # as Python's threading has it
        return _LIMITS[errno.EAGAIN] if "can't start new thread" in str(error) else None
    return _LIMITS.get(errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None) or 0)


def _parse(arguments: Sequence[str], description: Optional[str], others: Mapping[str, str] = _NO_OTHERS) -> list[str]:
    if any(argument in _HELP for argument in arguments[1:]):
        streams.print_answer(help_text(description, shutil.get_terminal_size().columns))
        sys.exit(0)
    try:
        rest = flags.FLAGS(arguments)
    except flags.Error as error:
        _note_origins(arguments[1:])
        message = with_origins(_error_text(error, _defined, others), _origins)
        print(f"error: {message}; --help lists the flags of {_program(arguments[0])}", file=sys.stderr)
        sys.exit(2)
    _note_origins(arguments[1:])
    return rest


def _note_origins(arguments: Sequence[str]) -> None:
    _origins.clear()
    with contextlib.suppress(flags.Error, UnicodeDecodeError, OSError):  # such as a flagfile that is not there
        _origins.update(_find_origins(arguments))


def _program(script: str) -> str:
    """The command as the user started it; script: its path."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name[: -len(".__main__")] if spec and spec.name.endswith(".__main__") else spec and spec.name
    return f"python -m {module}" if module else os.path.basename(script)


def _error_text(error: Exception, config_classes: Iterable[type], others: Mapping[str, str] = _NO_OTHERS) -> str:
    """What is wrong with flags, in one line."""
    if not isinstance(error, flags.UnrecognizedFlagError):
        return " ".join(str(error).split()).replace("ERROR:: ", "")
    name = error.flagname
    for known in (name, name[len("no") :] if name.startswith("no") else name):
        about = others.get(known) or RETIRED_FLAGS.get(known)
        if about:
            return f"--{known} is no flag of this command: {about}"
    for program, parts in (("run", training.PARTS.values()), ("make_data", make_data.PARTS)):
        if name in _names(parts):
            return f"--{name} is no flag of this command, but of bert_pretrain.{program}"
    close = difflib.get_close_matches(name, _names(config_classes), 1, _SIMILAR)
    return f"--{name} is no flag of this command{f'; perhaps --{close[0]} is meant' if close else ''}"


def _names(config_classes: Iterable[type]) -> list[str]:
    """Names and old names of the dataclasses' flags."""
    return [one for field, facts in options_of(*config_classes) for one in (field.name, facts.old_name) if one]


def _find_origins(arguments: Sequence[str]) -> dict[str, str]:
    """Flag -> where its last value comes from, for those of flagfiles and those that a script noted."""
    by_script, found = json.loads(os.environ.get(FLAG_ORIGINS, "{}")), {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            break
        if not argument.startswith("-"):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if name != "flagfile":
            found[_field_name(name)] = by_script.get(argument, "")
            continue
        path = value if equals else next(rest, "")
        for line in flags.FLAGS.read_flags_from_files([f"--flagfile={path}"]):
            found[_field_name(line.lstrip("-").partition("=")[0])] = path
    return {name: origin for name, origin in found.items() if origin}


def _field_name(name: str) -> str:
    """The field of a flag as it was given: --noamp is of amp."""
    for field, facts in options_of(*_defined):
        if name in (field.name, facts.old_name, f"no{field.name}"):
            return field.name
    return name


def help_text(description: Optional[str], width: int) -> str:
    """The flags in their groups, required ones first, for lines of `width` characters."""
    return "\n".join([*([description.strip(), ""] if description else []), *_help_lines(width)])


def _help_lines(width: int) -> Iterator[str]:
    types = {name: kind for part in _defined for name, kind in typing.get_type_hints(part).items()}
    for group in flag_groups(*_defined):
        yield f"{group.title}:"
        for field in group.fields:
            yield f"  {_usage(field, _plain_type(types[field.name]))}"
            yield from textwrap.wrap(
                _explanation(field), max(40, width), initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        yield ""
    yield "--flagfile=FILE reads flags from a file. --helpfull lists the flags of imported libraries, too."


def _usage(field: dataclasses.Field[Any], plain: Any) -> str:
    if plain is bool:
        return f"--[no]{field.name}"
    choices = facts_of(field).choices
    return f"--{field.name}={'|'.join(choices) if choices else plain.__name__.upper()}"


def _explanation(field: dataclasses.Field[Any]) -> str:
    facts = facts_of(field)
    required = " Required." if facts.required else ""
    old_name = f" Also --{facts.old_name}." if facts.old_name else ""
    default = "" if field.default in (None, "") else f" Default: {field.default}."
    return facts.help + required + old_name + default
