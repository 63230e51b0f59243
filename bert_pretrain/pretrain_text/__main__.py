"""From a folder of text to a model, in one command; each step that is finished is not done again.

Use the script: bash scripts/pretrain_text.sh FOLDER_OF_TEXT OUT [--from=HF_FOLDER] [--hours=H] [flags]. It takes these
flags; all of them have a value that is chosen and printed before training starts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from bert_pretrain import cli
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import SIZES, layer_parameters
from bert_pretrain.config.option import require
from bert_pretrain.data.findings import TOLD_ELSEWHERE
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.launch import launcher
from bert_pretrain.make_data.script import make_data
from bert_pretrain.pretrain_text import command, recipe
from bert_pretrain.pretrain_text.command import ExplicitFlags, Folder
from bert_pretrain.run_files.report_file import UnreadableFileError, read_json_object
from bert_pretrain.run_files.results import COMPLETED, RESULTS_JSON
from bert_pretrain.system import files
from bert_pretrain.system.console import duration_text, log
from bert_pretrain.system.script import DRY_RUN, doing, launch, launch_last, use_environment

_MEASURED_SECONDS = 15  # for which the speed is measured
_MIN_TIMED, _MAX_TIMED = 6, 100  # updates
_UNTIMED = 2  # updates that train/throughput.py leaves out


def pretrain_text(source: str, folder: Folder, explicit: ExplicitFlags) -> None:
    """All steps; this process becomes the trainer. SystemExit where a step fails, ValueError for what cannot be done.

    What is decided stays in OUT/recipe for later starts.
    """
    text_flags, data_flags, train_flags = (folder.recipe(f"{name}.flags") for name in ("text", "data", "train"))
    doing("checking the command")
    require(os.path.isdir(source), f"{source}: no such folder; give one that holds text")
    require(os.environ.get("NUM_HELD_OUT") != "0", "NUM_HELD_OUT=0: training needs held-out text; leave it out")
    require(
        not os.environ.get("VOCAB_FILE"),
        "VOCAB_FILE is of scripts/make_data.sh alone: a new model gets a vocabulary of its text, --from has its own; "
        "leave it out",
    )
    explicit.check()
    _require_names_for_flagfiles(folder, explicit)
    machine = _read_machine(explicit.training.get("device") == "cpu")
    explicit.launcher.check(machine.num_ranks)
    pretrained = None
    if explicit.init_checkpoint is not None:
        allows_partial = explicit.training.get("allow_partial_init", False)
        pretrained = command.read_pretrained(explicit.init_checkpoint, allows_partial)
    if not DRY_RUN:
        ranks = {"NP": machine.num_ranks} if machine.num_ranks > 1 else {}
        command.claim_folder(folder, {"text": os.path.realpath(source), "flags": explicit.of_all_starts(), **ranks})
        of_data = recipe.data_flags(explicit.data)
        if pretrained:
            of_data.setdefault("do_lower_case", pretrained.lower_case)
            if not os.path.exists(folder.vocab_file):
                with files.atomic_write(folder.vocab_file, "wb") as file, open(pretrained.vocab_file, "rb") as original:
                    shutil.copyfileobj(original, file)
        _write_flagfile(text_flags, ["flags of make_data --make_text"], explicit.text)
        _write_flagfile(data_flags, ["flags of make_data, for vocabulary and shards"], of_data)
        log.info("text, vocabulary and shards come first; the time that training takes is told before it begins")

    trainer, launcher_flags = [sys.executable, "-m", launcher.TRAINER], []
    if machine.num_ranks > 1:
        trainer = [use_environment("--data", "--horovod"), "-m", "bert_pretrain.launch"]
        launcher_flags = [f"--{name}={value}" for name, value in vars(explicit.launcher).items()]
    make_data(source, folder.data, [f"--flagfile={data_flags}"], {**os.environ, "TEXT_FLAGFILE": text_flags})
    os.environ[TOLD_ELSEWHERE] = "1"  # make_data's last step told them, and faults ended it
    if DRY_RUN:
        launch(*trainer, f"--flagfile={folder.recipe('speed.flags')}")
    else:
        if not os.path.exists(train_flags):
            _choose_recipe(folder, explicit, machine, trainer)
        advice = "each flag can be given to this command, with another folder for the model"
        log.info(f"{train_flags}, the recipe; {advice}:")
        with files.open_regular(train_flags) as file:
            for line in file.read().splitlines():
                log.info(line[2:] if line.startswith("# ") else f"  {line}")
    doing("starting the training")
    launch_last(*trainer, f"--flagfile={train_flags}", *launcher_flags)


def _choose_recipe(folder: Folder, explicit: ExplicitFlags, machine: recipe.Machine, trainer: list[str]) -> None:
    """Chooses the model, measures its speed with a short run of the trainer, and writes the flags of training."""
    doing("choosing the recipe")
    corpus = _count_corpus(folder)
    hours = explicit.recipe.hours or recipe.default_hours(corpus, machine)
    config = _choose_model(folder, explicit, corpus, machine, hours)
    files.write_json(folder.recipe("bert_config.json"), dataclasses.asdict(config), indent=2)
    paths = {
        "do_train": True,
        "bert_config_file": folder.recipe("bert_config.json"),
        "input_files_dir": os.path.join(folder.data, "train"),
        "vocab_file": folder.vocab_file,
    }

    speed = recipe.assumed_speed(config, corpus, machine)
    flags = recipe.training_flags(corpus, machine, config, hours, speed, False, explicit.training)
    batch = machine.num_ranks * flags["train_batch_size"]
    num_timed = round(min(_MAX_TIMED, max(_MIN_TIMED, _MEASURED_SECONDS * speed / batch)))
    speed_flags, speed_run = folder.recipe("speed.flags"), folder.recipe("speed")
    shutil.rmtree(speed_run, ignore_errors=True)
    flags.update(
        num_train_steps=num_timed + _UNTIMED,
        num_warmup_steps=0,
        num_accumulation_steps=1,
        output_dir=speed_run,
        save_checkpoints_steps=num_timed + _UNTIMED,
        display_loss_steps=num_timed + _UNTIMED,
        init_checkpoint=None,
        init_optimizer_state=None,
        allow_partial_init=None,
        filled_sentences=None,
        **paths,
    )
    _write_flagfile(speed_flags, ["flags of the short run that measures the speed"], flags)
    log.info(f"measuring the speed of training here with {num_timed} updates")
    doing("measuring the speed of training")
    launch(*trainer, f"--flagfile={speed_flags}", output=folder.recipe("speed.log"))
    speed = _read_speed(folder, speed_run)

    is_continued = explicit.init_checkpoint is not None
    flags = recipe.training_flags(corpus, machine, config, hours, speed, is_continued, explicit.training)
    seconds = recipe.expected_seconds(corpus, flags, machine, speed)
    flags = {"do_train": True, "do_eval": True, **paths, **flags}
    flags.update(output_dir=folder.run, eval_files_dir=os.path.join(folder.data, "eval"), hf_dir=folder.model)
    flags.setdefault("filled_sentences", 3)
    devices = f"{machine.num_gpus} GPUs" if machine.num_gpus else f"{machine.num_cores} cores"
    comments = [
        f"text: {corpus.num_tokens:,} tokens in {corpus.num_records:,} records for training, "
        f"{corpus.num_eval_records:,} records held out",
        f"model: {config.num_hidden_layers} layers x {config.hidden_size} "
        f"({layer_parameters(config) / 1e6:.3g} million weights in the layers), {config.vocab_size:,} entries of the "
        f"vocabulary" + (f", continues {explicit.init_checkpoint}" if is_continued else ""),
        f"machine: {devices}; ranks: {machine.num_ranks}; time for training: {duration_text(hours * 3600)} at most "
        f"(--hours={hours:.3g})",
        f"expected: {duration_text(seconds)} for training and evaluation, at {speed:.1f} examples/s, which a short run "
        f"of this model reached on this machine with these records",
    ]
    _write_flagfile(folder.recipe("train.flags"), comments, flags)
    shutil.rmtree(speed_run, ignore_errors=True)


def _read_machine(only_cpu: bool) -> recipe.Machine:
    """The ranks that NP, HOSTFILE or the GPUs ask for; one on a CPU. ValueError where TensorFlow sees no GPU."""
    here = launcher.usable_machine(launcher.read_local_machine(), only_cpu)
    slots = launcher.read_host_slots(os.environ, here)
    wants_ranks = os.environ.get("NP") or slots or here.num_gpus
    num_ranks = launcher.choose_num_ranks(os.environ, here, slots) if wants_ranks else 1
    return recipe.Machine(num_ranks, here.num_cores * max(1, len(slots)), num_ranks if here.num_gpus else 0)


def _count_corpus(folder: Folder) -> recipe.Corpus:
    """Counted by make_data in the side files of the shards; they count the tokens of one pass."""
    num_records, num_tokens, seq_length = {"train": 0, "eval": 0}, 0, recipe.SEQ_LENGTH
    for part in num_records:
        directory = os.path.join(folder.data, part)
        for name in os.listdir(directory):
            if name.endswith(".tfrecord.json"):
                with files.open_regular(os.path.join(directory, name)) as file:
                    content = json.load(file)
                num_records[part] += content["examples"]
                if part == "train":
                    seq_length = content["origin"]["settings"]["max_seq_length"]
                    num_tokens += content["tokens"] * content["origin"]["settings"]["dupe_factor"]
    return recipe.Corpus(num_records["train"], num_tokens, num_records["eval"], seq_length)


def _choose_model(
    folder: Folder, explicit: ExplicitFlags, corpus: recipe.Corpus, machine: recipe.Machine, hours: float
) -> ModelConfig:
    if explicit.init_checkpoint is not None:
        return ModelConfig.from_json(os.path.join(explicit.init_checkpoint, "config.json"))
    num_entries = len(load_vocabulary(folder.vocab_file).entries)
    if explicit.recipe.model_size:
        return SIZES[explicit.recipe.model_size].config(num_entries)
    return recipe.choose_model(corpus, machine, hours, num_entries)


def _read_speed(folder: Folder, speed_run: str) -> float:
    """Examples a second of the short run. ValueError where it was stopped."""
    try:
        results = read_json_object(os.path.join(speed_run, RESULTS_JSON))
    except UnreadableFileError:
        results = {}
    if results.get("end") != COMPLETED or not results.get("examples_per_second"):
        raise ValueError(f"{folder.path}: the measurement of the speed was stopped; the same command does it again")
    return results["examples_per_second"]


def _require_names_for_flagfiles(folder: Folder, explicit: ExplicitFlags) -> None:
    """ValueError for what would be something else when it is read from a flagfile, whose lines are stripped UTF-8."""
    flags = {f"--{name}": value for name, value in explicit.of_all_starts().items() if isinstance(value, str)}
    for name, value in {"OUT": f"{folder.path}/", **flags}.items():
        require(
            files.printable(value) == value == value.rstrip(),
            f"{name}: {files.printable(value)!r} is not UTF-8 or ends in a blank, and flagfiles cannot hold it; "
            "give another name, such as one of a symbolic link to it",
        )


def _write_flagfile(path: str, comments: Iterable[str], flags: Mapping[str, Optional[Any]]) -> None:
    """A flag without a value (None) is left out."""
    lines = [f"# {comment}" for comment in comments]
    lines += [f"--{name}={value}" for name, value in flags.items() if value is not None]
    with files.atomic_write(path) as file:
        file.write("\n".join([*lines, ""]))


def _run(arguments: list[str]) -> int:
    explicit = command.read_flags()
    if len(arguments) != 2:
        given = " ".join(arguments) or "none"
        raise ValueError(f"expected a folder of text and a folder for the model, got {given}; --help lists the flags")
    source, output = map(os.path.expanduser, arguments)
    pretrain_text(source, Folder(output), explicit)
    return 0


def main() -> None:
    """The command: parses the flags, runs and exits."""
    sys.argv[1:] = [re.sub(r"^--?from(?==|$)", "--init_checkpoint", argument) for argument in sys.argv[1:]]
    cli.define_flags(*command.PARTS)
    cli.run_command(_run, __doc__, takes_arguments=True, others=command.FLAGS_SET_HERE)


if __name__ == "__main__":
    main()
