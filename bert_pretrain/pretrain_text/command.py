"""What the command asks for, checked before the work: the flags, the folder that it fills, the model of --from."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Collection
from typing import Any, NamedTuple, Optional

from bert_pretrain import cli
from bert_pretrain.config import training
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import options_of, require
from bert_pretrain.config.recipe import LauncherConfig, RecipeConfig
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.hugging_face import names, tokenizer
from bert_pretrain.hugging_face.safetensors_files import INDEX, WEIGHTS, open_tensors
from bert_pretrain.system.files import open_regular, write_json
from bert_pretrain.system.locks import SCRIPT

_COMMAND = "command.json"
_HEADS = (
    "cls/predictions/output_bias",
    "cls/predictions/transform/dense/kernel",
    "cls/seq_relationship/output_weights",
)


# --- Flags: those of make_data and run that the script does not set itself ---


class ExplicitFlags(NamedTuple):
    """The flags that the user set, by the program that reads them."""

    recipe: RecipeConfig
    launcher: LauncherConfig
    text: dict[str, Any]  # of make_data --make_text
    data: dict[str, Any]  # of make_data, for vocabulary and shards
    training: dict[str, Any]  # of bert_pretrain.run

    @property
    def init_checkpoint(self) -> Optional[str]:
        """The model of --from; None for a new one."""
        return self.training.get("init_checkpoint")

    def of_all_starts(self) -> dict[str, Any]:
        """Every flag that all starts must have in common, as the command line had it."""
        recipe = {name: value for name, value in dataclasses.asdict(self.recipe).items() if value is not None}
        return {**recipe, **self.text, **self.data, **self.training}

    def check(self) -> None:
        """ValueError for what cannot be; the programs check the rest."""
        self.recipe.check()
        for name in ("train_batch_size", "num_accumulation_steps", "eval_batch_size", "num_train_steps"):
            value = self.training.get(name, 1)
            require(value >= 1, f"--{name} must be at least 1, got {value}")
        length = self.data.get("max_seq_length", 128)
        require(5 <= length <= 512, f"--max_seq_length must be 5 to 512 here, the positions of the model; got {length}")
        if self.init_checkpoint is not None:
            alone = "--from and --{} exclude each other: the model has {}"
            require(not self.recipe.model_size, alone.format("model_size", "a size"))
            require("vocab_size" not in self.data, alone.format("vocab_size", "its own"))
        self._check_programs()

    def _check_programs(self) -> None:
        """ValueError for what make_data and run would refuse, with stand-ins for the paths that they get."""
        examples = {name: value for name, value in self.data.items() if name in _names_of(ExampleConfig)}
        paths = {"input_file": "text", "output_dir": "out", "vocab_file": "vocab.txt"}
        others = {name: value for name, value in self.data.items() if name not in examples}
        for settings in (TextConfig(**self.text), ExampleConfig(**examples), MakeDataConfig(**paths, **others)):
            settings.check()
        given = {
            **{"bert_config_file": "bert_config.json", "output_dir": "run", "do_train": True, "do_eval": True},
            **{"input_files_dir": "train", "eval_files_dir": "eval", "vocab_file": "vocab.txt"},
            **{"dynamic_masking": True, "lr_scaling": "none"},
            **self.training,
        }
        parts = {
            name: part(**{key: value for key, value in given.items() if key in _names_of(part)})
            for name, part in training.PARTS.items()
        }
        training.Config(**parts).check()


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


# Flags of the programs that are not flags here.
FLAGS_SET_HERE = {
    field.name: "scripts/pretrain_text.sh sets it itself"
    for field, facts in options_of(TextConfig, ExampleConfig, MakeDataConfig, *training.PARTS.values())
    if facts.set_by_script
}


def read_flags() -> ExplicitFlags:
    """The flags of the command line, as they are."""
    examples = _explicit_values(_EXAMPLES)
    trained = {name: value for part in _TRAINING for name, value in _explicit_values(part).items()}
    trained.update({name: examples[name] for name in _SHARED if name in examples})
    if examples.get("single_sequence"):  # there is no next sentence to learn
        trained.setdefault("next_sentence_weight", 0.0)
    return ExplicitFlags(
        cli.read_settings(RecipeConfig),
        cli.read_settings(LauncherConfig),
        _explicit_values(_TEXT),
        {**_explicit_values(_VOCABULARY), **examples},
        trained,
    )


def _explicit_values(config_class: type) -> dict[str, Any]:
    """The dataclass's flags that the user set, with their values."""
    values = cli.read_settings(config_class)
    return {name: getattr(values, name) for name in sorted(cli.explicit_flags(config_class))}


# --- The folder OUT ---


class Folder(NamedTuple):
    """Names within OUT."""

    path: str

    @property
    def data(self) -> str:
        """The output of make_data/script.py: text/, vocab.txt, train/, eval/."""
        return os.path.join(self.path, "data")

    @property
    def vocab_file(self) -> str:
        """The model's vocabulary."""
        return os.path.join(self.data, "vocab.txt")

    @property
    def run(self) -> str:
        """The output_dir of training."""
        return os.path.join(self.path, "run")

    @property
    def model(self) -> str:
        """The Hugging Face folder."""
        return os.path.join(self.path, "model")

    def recipe(self, name: str) -> str:
        """A file that says what was chosen."""
        return os.path.join(self.path, "recipe", name)


def claim_folder(folder: Folder, command: dict[str, Any]) -> None:
    """Notes in a new folder what it is made by. ValueError where it is made by something else."""
    path = os.path.join(folder.path, _COMMAND)
    if os.path.lexists(path):
        _require_same(folder, path, command)
        return
    names_there = os.listdir(folder.path) if os.path.isdir(folder.path) else []
    # Neither the script's lock counts, nor what a start left that was killed here.
    if any(name != SCRIPT.file_name and not name.endswith(".partial") for name in names_there):
        raise ValueError(f"{folder.path}: the folder holds something else; name another one for the model")
    try:
        write_json(path, command)
    except OSError as error:
        raise ValueError(f"{folder.path}: cannot be written: {error.strerror}") from None


def _require_same(folder: Folder, path: str, now: dict[str, Any]) -> None:
    """ValueError where the command of the first start, in the file `path`, was another one."""
    try:
        with open_regular(path) as file:
            before = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}; move it away, or name another folder") from None
    before = before if isinstance(before, dict) else {}
    for name in dict.fromkeys([*now, *before]):
        if name != "flags" and before.get(name) != now.get(name):
            raise ValueError(
                f"{folder.path} was begun with {name} {before.get(name)}, this command has {now.get(name)}; give the "
                f"same, or name another folder"
            )
    then, flags = before.get("flags") or {}, now["flags"]
    for name in dict.fromkeys([*flags, *then]):
        if then.get(name) != flags.get(name):
            begun, given = (
                f"--{name}={values[name]}" if name in values else f"no --{name}" for values in (then, flags)
            )
            raise ValueError(
                f"{folder.path} was begun with {begun}, this command has {given}; give the same flags "
                f"({path} has them), or name another folder"
            )


# --- The model that --from names ---


class Pretrained(NamedTuple):
    """What the data depend on."""

    vocab_file: str
    lower_case: bool


def read_pretrained(folder: str, allows_partial: bool) -> Pretrained:
    """The model of a Hugging Face folder. ValueError, one line, where it cannot be continued.

    allows_partial: the user gave --allow_partial_init, so heads may be missing.
    """
    require(os.path.isdir(folder), f"--from: {folder}: no such folder; give a Hugging Face folder")
    config = ModelConfig.from_json(os.path.join(folder, "config.json"))
    vocab_file = os.path.join(folder, "vocab.txt")
    require(os.path.isfile(vocab_file), f"--from: {folder} has no vocab.txt; BERT's WordPiece vocabulary is needed")
    entries = load_vocabulary(vocab_file).entries
    num_entries = len(entries)
    require("[PAD]" in entries, f"--from: {vocab_file} has no [PAD], which the export needs; give the model's own")
    require(
        num_entries <= config.vocab_size,
        f"--from: {vocab_file} has {num_entries} entries, the model {config.vocab_size}; give the model's own",
    )
    paths = [os.path.join(folder, name) for name in (WEIGHTS, INDEX)]
    weights = next(filter(os.path.isfile, paths), None)
    if weights is None:
        raise ValueError(f"--from: {paths[0]} is not there; save the model with safe_serialization=True")
    variables = {names.variable_name(tensor.name) for tensor in open_tensors(weights, "from")}
    missing = [name for name in _HEADS if name not in variables]
    require(
        allows_partial or not missing,
        f"--from: {weights} lacks heads of BertForPreTraining ({', '.join(missing)}); --allow_partial_init "
        f"starts them from random values",
    )
    return Pretrained(vocab_file, bool(tokenizer.read_settings(folder).get("do_lower_case", True)))
