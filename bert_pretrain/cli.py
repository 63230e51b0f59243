"""Dataclass fields <-> absl flags. The only importer of absl.flags; doors call `define`, `read` and `main`."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
import typing
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

from absl import app, flags

T = TypeVar("T")


def define(*config_classes: type) -> None:
    """Registers one flag per field of the dataclasses, with the field's name, type, default and help."""
    for config_class in config_classes:
        types = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            _define_flag(field, types[field.name])
            # --help shows the flags of the module that was started; without this they would count as cli.py's.
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[field.name])


def _define_flag(field: dataclasses.Field, annotation: Any) -> None:
    help_text, choices = field.metadata["help"], field.metadata["choices"]
    plain = [t for t in typing.get_args(annotation) if t is not type(None)] or [annotation]
    if choices:
        flags.DEFINE_enum(field.name, field.default, list(choices), help_text, case_sensitive=False)
    elif plain[0] is bool:
        flags.DEFINE_bool(field.name, field.default, help_text)
    elif plain[0] is int:
        flags.DEFINE_integer(field.name, field.default, help_text)
    elif plain[0] is float:
        flags.DEFINE_float(field.name, field.default, help_text)
    else:
        assert plain[0] is str, f"no flag type for {field.name}: {annotation}"
        flags.DEFINE_string(field.name, field.default, help_text)


def read(config_class: type[T]) -> T:
    """An instance of the dataclass filled from the parsed flags."""
    return config_class(**{f.name: getattr(flags.FLAGS, f.name) for f in dataclasses.fields(config_class)})


def given(config_class: type) -> set[str]:
    """Names of the dataclass's flags that the command line or a flagfile set."""
    return {f.name for f in dataclasses.fields(config_class) if flags.FLAGS[f.name].present}


def main(run: Callable[[], int]) -> None:
    """Runs a door after flags are parsed: ValueError becomes one line on stderr and exit code 2."""

    def guarded(arguments: Sequence[str]) -> int:
        try:
            if len(arguments) > 1:
                raise ValueError(f"unexpected argument {arguments[1]!r}; settings are given as --name=value")
            return run()
        except ValueError as error:
            if "verbose_logging" in flags.FLAGS and flags.FLAGS.verbose_logging:
                traceback.print_exc()
            print(f"error: {error}", file=sys.stderr)
            return 2

    # absl prints flag errors without a traceback, but with exit code 1; bad input is 2 everywhere here.
    try:
        app.run(guarded, flags_parser=_parse)
    finally:
        sys.stdout.flush()


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        message = " ".join(str(error).split())
        print(f"error: {message}; --help lists the flags of {os.path.basename(arguments[0])}", file=sys.stderr)
        sys.exit(2)
