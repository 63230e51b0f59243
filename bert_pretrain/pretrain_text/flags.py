"""The flags of scripts/pretrain_text.sh: those of make_data and run that it does not set itself, sorted by program."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

from bert_pretrain import cli
from bert_pretrain.config import training
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.recipe import LauncherConfig, RecipeConfig

# What the script sets itself, and what makes no sense in it.
_SET_BY_SCRIPT = frozenset(
    "input_files_dir eval_files_dir output_dir bert_config_file do_train do_eval hf_dir vocab_file horovod "
    "max_seq_length max_predictions_per_seq eval_checkpoint_path replay_update dllog_path num_picked_examples mode "
    "mlperf mlperf_division verify_init init_accuracy num_held_out "
    "held_out iterations_per_loop allreduce_post_accumulation".split()
)
_OF_VOCABULARY = ("vocab_size", "max_memory_gb")
_OF_DATA = ("max_seq_length", "max_predictions_per_seq")


class Given(NamedTuple):
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


def _reduced(config_class: type, left_out: Iterable[str]) -> type:
    """The dataclass without the fields that the script sets; the title in --help stays."""
    types = typing.get_type_hints(config_class)
    fields = [
        (field.name, types[field.name], dataclasses.field(default=field.default, metadata=field.metadata))
        for field in dataclasses.fields(config_class)
        if field.name not in left_out
    ]
    made = dataclasses.make_dataclass(config_class.__name__, fields, frozen=True)
    made.__doc__ = config_class.__doc__
    return made


def _names(config_class: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)}


_TEXT = _reduced(TextConfig, _SET_BY_SCRIPT)
_EXAMPLES = _reduced(ExampleConfig, _SET_BY_SCRIPT - set(_OF_DATA))
_VOCABULARY = _reduced(MakeDataConfig, _names(MakeDataConfig) - set(_OF_VOCABULARY))
# A name that make_data and run have in common is defined once, with make_data's help.
_TRAINING = [
    _reduced(part, _SET_BY_SCRIPT | (_names(ExampleConfig) - {"verbose_logging"})) for part in training.PARTS.values()
]
PARTS = (RecipeConfig, LauncherConfig, _TEXT, _VOCABULARY, _EXAMPLES, *_TRAINING)


def read() -> Given:
    """The flags of the command line. ValueError for an invalid one."""
    recipe = cli.read(RecipeConfig)
    recipe.check()
    shared = ("masked_lm_prob", "do_whole_word_mask")
    examples = _given(_EXAMPLES)
    trained = {name: value for part in _TRAINING for name, value in _given(part).items()}
    trained.update({name: examples[name] for name in shared if name in examples})
    return Given(recipe, cli.read(LauncherConfig), _given(_TEXT), {**_given(_VOCABULARY), **examples}, trained)


def _given(config_class: type) -> dict[str, Any]:
    """The dataclass's flags that the user set, with their values."""
    values = cli.read(config_class)
    return {name: getattr(values, name) for name in sorted(cli.given(config_class))}


def flag_file(comments: Iterable[str], flags: dict[str, Optional[Any]]) -> str:
    """The content of a flagfile; a flag without a value (None) is left out."""
    lines = [f"# {comment}" for comment in comments]
    return "\n".join([*lines, *(f"--{name}={value}" for name, value in flags.items() if value is not None), ""])
