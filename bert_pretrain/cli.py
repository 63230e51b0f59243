"""Dataclass fields <-> absl flags. Only this module imports absl; entry points call `define`, `read` and `main`."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import textwrap
import traceback
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from absl import app, flags

from bert_pretrain.config.option import default_of, facts_of, flag_groups, local_paths, options_of, require_one_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_HELP = ("--help", "-help", "-h", "-?", "--helpshort", "-helpshort")
_defined: list[type] = []  # the dataclasses whose fields are flags, in the order of --help


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
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
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
    return local_paths(field.name, value, facts_of(field).takes_url)


def explicit_flags(*config_classes: type) -> frozenset[str]:
    """Names of the dataclasses' flags that the command line or a flagfile set."""
    return frozenset(
        field.name
        for field, facts in options_of(*config_classes)
        if any(flags.FLAGS[name].present for name in (field.name, facts.old_name) if name)
    )


def run_command(run: Callable[..., int], description: Optional[str] = None, takes_arguments: bool = False) -> None:
    """Parses the flags, runs an entry point and exits. A ValueError becomes one line on stderr and exit code 2.

    description: the first lines of --help. takes_arguments: run(arguments) receives what is no flag; else run() is
    called, and an argument that is no flag is an error.
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
            print(f"error: {error}", file=sys.stderr)
            return 2

    flags.FLAGS.set_gnu_getopt(takes_arguments)  # flags may follow arguments
    # absl prints flag errors without a traceback, but with exit code 1; invalid input is 2 everywhere here.
    try:
        app.run(guarded, flags_parser=lambda arguments: _parse(arguments, description))
    finally:
        _flush_stdout()


def _flush_stdout() -> None:
    """What a closed pipe or a full disk does not take is dropped: it must not change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more


def _parse(arguments: Sequence[str], description: Optional[str]) -> list[str]:
    if any(argument in _HELP for argument in arguments[1:]):
        print(help_text(description, shutil.get_terminal_size().columns))
        sys.exit(0)
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        message = " ".join(str(error).split())
        print(f"error: {message}; --help lists the flags of {os.path.basename(arguments[0])}", file=sys.stderr)
        sys.exit(2)


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
