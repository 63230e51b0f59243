"""The flags of scripts/pretrain_text.sh: those of make_data and run that it does not set itself, sorted by program."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, Optional

from bert_pretrain import cli
from bert_pretrain.config import training
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.option import options_of
from bert_pretrain.config.recipe import LauncherConfig, RecipeConfig


class ScriptFlags(NamedTuple):
    """The flags that the user gave, by the program that reads them."""

    recipe: RecipeConfig
    launcher: LauncherConfig
    text: dict[str, Any]  # of make_data --make_text
    data: dict[str, Any]  # of make_data, for vocabulary and shards
    training: dict[str, Any]  # of bert_pretrain.run

    def all(self) -> dict[str, Any]:
        """Every flag that all starts must have in common, as the command line had it."""
        recipe = {name: value for name, value in dataclasses.asdict(self.recipe).items() if value is not None}
        return {**recipe, **self.text, **self.data, **self.training}


def _taken(config_class: type, without: Collection[str] = ()) -> type:
    """The dataclass without the fields that the script sets, and without those named; its title in --help stays."""
    types = typing.get_type_hints(config_class)
    fields = [
        (field.name, types[field.name], dataclasses.field(default=field.default, metadata=field.metadata))
        for field, facts in options_of(config_class)
        if not facts.set_by_script and field.name not in without
    ]
    made = dataclasses.make_dataclass(config_class.__name__, fields, frozen=True)
    made.__doc__ = config_class.__doc__
    return made


def _names_of(*config_classes: type) -> set[str]:
    return {field.name for field, _ in options_of(*config_classes)}


_TEXT, _EXAMPLES, _VOCABULARY = (_taken(part) for part in (TextConfig, ExampleConfig, MakeDataConfig))
# A name that make_data and run have in common is a flag once, with make_data's help, and goes to both.
_TRAINING = [_taken(part, _names_of(_EXAMPLES)) for part in training.PARTS.values()]
_SHARED = _names_of(_EXAMPLES) & _names_of(*map(_taken, training.PARTS.values()))
PARTS = (RecipeConfig, LauncherConfig, _TEXT, _VOCABULARY, _EXAMPLES, *_TRAINING)


def read_script_flags() -> ScriptFlags:
    """The flags of the command line. ValueError for an invalid one."""
    recipe = cli.read(RecipeConfig)
    recipe.check()
    examples = _explicit_values(_EXAMPLES)
    trained = {name: value for part in _TRAINING for name, value in _explicit_values(part).items()}
    trained.update({name: examples[name] for name in _SHARED if name in examples})
    return ScriptFlags(
        recipe,
        cli.read(LauncherConfig),
        _explicit_values(_TEXT),
        {**_explicit_values(_VOCABULARY), **examples},
        trained,
    )


def _explicit_values(config_class: type) -> dict[str, Any]:
    """The dataclass's flags that the user set, with their values."""
    values = cli.read(config_class)
    return {name: getattr(values, name) for name in sorted(cli.explicit_flags(config_class))}


def flagfile_text(comments: Iterable[str], flags: dict[str, Optional[Any]]) -> str:
    """The content of a flagfile; a flag without a value (None) is left out."""
    lines = [f"# {comment}" for comment in comments]
    return "\n".join([*lines, *(f"--{name}={value}" for name, value in flags.items() if value is not None), ""])
