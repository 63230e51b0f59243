"""What scripts/pretrain_text.sh decides between its commands. What is decided stays in OUT/recipe for later starts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import SIZES, layer_parameters
from bert_pretrain.config.option import require
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.launch import hosts, launcher
from bert_pretrain.pretrain_text import pretrained
from bert_pretrain.pretrain_text.flags import ScriptFlags, flagfile_text
from bert_pretrain.pretrain_text.folder import Folder, claim
from bert_pretrain.recipe import choice
from bert_pretrain.system import files

_CALIBRATION_SECONDS = 15
_MIN_TIMED, _MAX_TIMED = 6, 100  # updates
_UNTIMED = 2  # updates that train/throughput.py leaves out
_DATA_FLAGS, _TEXT_FLAGS, _SPEED_FLAGS, _TRAIN_FLAGS = "data.flags", "text.flags", "speed.flags", "train.flags"


def begin(source: str, folder: Folder, given: ScriptFlags) -> Iterator[str]:
    """Checks the command, and writes the flags of make_data."""
    start = given.training.get("init_checkpoint")
    require(os.path.isdir(source), f"{source}: no such folder; give one that holds text")
    require(not (start and given.recipe.model_size), "--from and --model_size exclude each other: the model has a size")
    _check_flags(given)
    machine = _machine()
    given.launcher.check(machine.num_ranks)
    data = choice.data_flags(given.data)
    model = pretrained.find(start, given.training.get("allow_partial_init", False)) if start else None
    if model:
        require("vocab_size" not in given.data, "--from and --vocab_size exclude each other: the model has its own")
        data.setdefault("do_lower_case", model.lower_case)
    ranks = {"NP": machine.num_ranks} if machine.num_ranks > 1 else {}
    claim(folder, {"text": os.path.realpath(source), "flags": given.all(), **ranks})
    if model and not os.path.exists(folder.vocab_file):
        with files.atomic_write(folder.vocab_file, "wb") as file, open(model.vocab_file, "rb") as original:
            shutil.copyfileobj(original, file)
    _write(folder, _TEXT_FLAGS, flagfile_text(["flags of make_data --make_text"], given.text))
    _write(folder, _DATA_FLAGS, flagfile_text(["flags of make_data, for vocabulary and shards"], data))
    _write(folder, "ranks", f"{machine.num_ranks}\n")
    launcher = vars(given.launcher) if machine.num_ranks > 1 else {}
    _write(folder, "launcher.flags", " ".join(f"--{name}={value}" for name, value in launcher.items()) + "\n")
    yield "text, vocabulary and shards come first; the time that training takes is told before it begins"


def choose(source: str, folder: Folder, given: ScriptFlags) -> Iterator[str]:
    """Chooses the model, and writes the flags of the run that measures its speed. Nothing where that is done."""
    if os.path.exists(folder.recipe(_TRAIN_FLAGS)):
        return
    corpus, machine = _corpus(folder), _machine()
    config = _model(folder, given, corpus, machine)
    files.write_json(folder.recipe("bert_config.json"), dataclasses.asdict(config), indent=2)
    speed = choice.assumed_speed(config, corpus, machine)
    flags = choice.training_flags(corpus, machine, _hours(given, corpus, machine), speed, False, given.training)
    batch = machine.num_ranks * flags["train_batch_size"]
    timed = round(min(_MAX_TIMED, max(_MIN_TIMED, _CALIBRATION_SECONDS * speed / batch)))
    shutil.rmtree(folder.calibration, ignore_errors=True)
    flags.update(
        num_train_steps=timed + _UNTIMED,
        num_warmup_steps=0,
        num_accumulation_steps=1,
        output_dir=folder.calibration,
        save_checkpoints_steps=timed + _UNTIMED,
        display_loss_steps=timed + _UNTIMED,
        init_checkpoint=None,
        init_optimizer_state=None,
        allow_partial_init=None,
        filled_sentences=None,
        **_paths(folder),
    )
    _write(folder, _SPEED_FLAGS, flagfile_text(["flags of the short run that measures the speed"], flags))
    yield f"measuring the speed of training here with {timed} updates"


def plan(source: str, folder: Folder, given: ScriptFlags) -> Iterator[str]:
    """Writes the flags of training, once, and tells them and the time that they take."""
    corpus, machine = _corpus(folder), _machine()
    path = folder.recipe(_TRAIN_FLAGS)
    if not os.path.exists(path):
        speed = _measured_speed(folder)
        flags = choice.training_flags(
            corpus, machine, _hours(given, corpus, machine), speed, _is_continued(given), given.training
        )
        seconds = choice.expected_seconds(corpus, flags, machine, speed)
        flags = {"do_train": True, "do_eval": True, **_paths(folder), **flags}
        flags.update(output_dir=folder.run, eval_files_dir=os.path.join(folder.data, "eval"), hf_dir=folder.model)
        flags.setdefault("filled_sentences", 3)
        comments = [*_told(folder, corpus, machine, given), _time(seconds, speed, machine)]
        _write(folder, _TRAIN_FLAGS, flagfile_text(comments, flags))
        shutil.rmtree(folder.calibration, ignore_errors=True)
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    yield f"{path}, the recipe; each flag can be given to this command, with another folder for the model:"
    yield from (line[2:] if line.startswith("# ") else f"  {line}" for line in lines)


def _check_flags(given: ScriptFlags) -> None:
    """Everything that can be known of the flags before the work; the programs check the rest."""
    for name in ("train_batch_size", "num_accumulation_steps", "eval_batch_size", "num_train_steps"):
        value = given.training.get(name, 1)
        require(value >= 1, f"--{name} must be at least 1, got {value}")
    length = given.data.get("max_seq_length", 128)
    require(5 <= length <= 512, f"--max_seq_length must be 5 to 512 here, the positions of the model; got {length}")


def _machine() -> choice.Machine:
    """The ranks that NP, HOSTFILE or the GPUs ask for; one on a CPU."""
    here = launcher.read_local_machine()
    hostfile = os.path.expanduser(os.environ.get("HOSTFILE", ""))
    slots = hosts.read_hostfile(hostfile, here.num_gpus or here.num_cores) if hostfile else {}
    wants_ranks = bool(os.environ.get("NP") or slots or here.num_gpus)
    num_ranks = launcher.choose_num_ranks(os.environ, here, slots) if wants_ranks else 1
    return choice.Machine(num_ranks, here.num_cores * max(1, len(slots)), num_ranks if here.num_gpus else 0)


def _corpus(folder: Folder) -> choice.Corpus:
    """Counted by make_data in the side files of the shards; they count the tokens of one pass."""
    sums = {part: [0, 0] for part in ("train", "eval")}
    for part, found in sums.items():
        directory = os.path.join(folder.data, part)
        for name in sorted(os.listdir(directory)):
            if name.endswith(".tfrecord.json"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    content = json.load(file)
                found[0] += content["examples"]
                found[1] += content["tokens"] * content["origin"]["settings"]["dupe_factor"]
    return choice.Corpus(sums["train"][0], sums["train"][1], sums["eval"][0])


def _hours(given: ScriptFlags, corpus: choice.Corpus, machine: choice.Machine) -> float:
    return given.recipe.hours or choice.default_hours(corpus, machine)


def _model(folder: Folder, given: ScriptFlags, corpus: choice.Corpus, machine: choice.Machine) -> ModelConfig:
    if _is_continued(given):
        return ModelConfig.from_json(os.path.join(given.training["init_checkpoint"], "config.json"))
    num_entries = len(load_vocabulary(folder.vocab_file).entries)
    if given.recipe.model_size:
        return SIZES[given.recipe.model_size].config(num_entries)
    return choice.choose_model(corpus, machine, _hours(given, corpus, machine), num_entries)


def _paths(folder: Folder) -> dict[str, Any]:
    return {
        "do_train": True,
        "bert_config_file": folder.recipe("bert_config.json"),
        "input_files_dir": os.path.join(folder.data, "train"),
        "vocab_file": folder.vocab_file,
    }


def _measured_speed(folder: Folder) -> float:
    """Examples a second of the short run. ValueError where it was stopped."""
    path = os.path.join(folder.calibration, "results.json")
    try:
        with files.open_regular(path) as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = {}
    if found.get("end") != "completed" or not found.get("examples_per_second"):
        raise ValueError(f"{folder.path}: the measurement of the speed was stopped; the same command does it again")
    return found["examples_per_second"]


def _told(folder: Folder, corpus: choice.Corpus, machine: choice.Machine, given: ScriptFlags) -> Iterator[str]:
    config = ModelConfig.from_json(folder.recipe("bert_config.json"))
    yield (
        f"text: {corpus.num_tokens:,} tokens in {corpus.num_records:,} records for training, "
        f"{corpus.num_eval_records:,} records held out"
    )
    yield (
        f"model: {config.num_hidden_layers} layers x {config.hidden_size} "
        f"({layer_parameters(config) / 1e6:.3g} million weights in the layers), {config.vocab_size:,} entries of the "
        f"vocabulary" + (f", continues {given.training['init_checkpoint']}" if _is_continued(given) else "")
    )
    devices = f"{machine.num_gpus} GPUs" if machine.num_gpus else f"{machine.num_cores} cores"
    hours = _hours(given, corpus, machine)
    time = f"{_duration(hours * 3600)} at most (--hours={hours:.3g})"
    yield f"machine: {devices}; ranks: {machine.num_ranks}; time for training: {time}"


def _is_continued(given: ScriptFlags) -> bool:
    return "init_checkpoint" in given.training


def _time(seconds: float, speed: float, machine: choice.Machine) -> str:
    return (
        f"expected: {_duration(seconds)} for training and evaluation, at {speed:.1f} examples/s, which a short run of "
        f"this model reached on this machine with these records"
    )


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _write(folder: Folder, name: str, text: str) -> None:
    with files.atomic_write(folder.recipe(name)) as file:
        file.write(text)
