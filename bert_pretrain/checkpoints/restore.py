"""What variables start from: the checkpoint of a directory that is continued, what it holds, and its values.

1. `find_newest` chooses the checkpoint that a run continues, and says why it is not simply the newest.
2. `open_reader` opens a TF1 checkpoint or safetensors of Hugging Face; `open_whole` also compares the CRCs of tensors.
3. `find_start_values` says which variables start from which checkpoint; `check_state` and `load_init_checkpoint`
   compare it with the model: a report, or an error.
4. `initialize_variables` gives the session's variables their first values, in groups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Optional, Protocol

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, variable_names
from bert_pretrain.config.training import RunConfig
from bert_pretrain.hugging_face.safetensors_files import SafetensorsReader, find_weights
from bert_pretrain.optim import optimizers
from bert_pretrain.system.files import plain_name
from bert_pretrain.tensorflow_compat.typed import Scaffold, Session, Shape, static_shape

# A checkpoint without this variable is not of this program and continues as weights.
_OWN_VARIABLE = "loss_scale/skipped_updates"
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError, ValueError, MemoryError)
_SHOWN_VARIABLES = 3  # variables of each kind that a message names
_GROUP_BYTES = 2**28
_GIVE_ITS_CONFIG = "give the checkpoint's own bert_config.json (config.json) as --bert_config_file"
_HEADS = ("cls/", "bert/pooler/")  # what an encoder alone lacks


class StartValues(Protocol):
    """What variables start from."""

    def get_tensor(self, variable: str) -> np.ndarray: ...  # noqa: D102  float32 or int64


class CheckpointReader(StartValues, Protocol):
    """What is used of a checkpoint, in the names of TF1: of TensorFlowReader and SafetensorsReader."""

    def get_variable_to_shape_map(self) -> dict[str, list[int]]: ...  # noqa: D102
    def get_variable_to_dtype_map(self) -> dict[str, tf.DType]: ...  # noqa: D102
    def has_tensor(self, variable: str) -> bool: ...  # noqa: D102
    @property
    def renamed(self) -> Mapping[str, str]: ...  # noqa: D102  variable -> its name in the file, where that is another


class VariableComparison(NamedTuple):
    """Expected variables compared with those that a checkpoint holds."""

    matched: list[str]
    missing: list[str]
    misshaped: list[str]  # "name: checkpoint [2, 3], model [4, 3]"
    extra: list[str]
    cast: dict[str, str] = {}  # noqa: RUF012 (of a NamedTuple)  matched variable -> its type, where that is not float32


class NewestCheckpoint(NamedTuple):
    """The checkpoint of a directory from which a run goes on."""

    prefix: Optional[str] = None  # None in a directory without checkpoints
    is_own: bool = False  # it holds the whole state of a run, not the weights alone
    kept: tuple[str, ...] = ()  # this program's checkpoints up to it, oldest first
    notices: tuple[str, ...] = ()  # why it is not simply the one that the file `checkpoint` names


def resolve_prefix(path: str) -> str:
    """The prefix that `path` names: itself, or that of a directory.

    It is the one that the directory's file `checkpoint` names, or that of a SavedModel's or TF-Hub module's variables.
    """
    state = _listed_prefixes(path) if os.path.isdir(path) else []
    of_saved_model = os.path.join(path, "variables", "variables")
    return state[-1] if state else of_saved_model if checkpoint_files.has_index(of_saved_model) else path


def open_reader(prefix: str, flag: str) -> CheckpointReader:
    """A reader of a checkpoint with a whole index, or of a Hugging Face folder or a safetensors file.

    ValueError, naming the flag, says what is missing or unreadable.
    """
    exported = None if checkpoint_files.has_index(prefix) else find_weights(prefix, flag)
    if exported:
        return SafetensorsReader(exported, flag)
    if not checkpoint_files.has_index(prefix):
        raise ValueError(f"--{flag}: {prefix}.index does not exist{_other_checkpoints(prefix)}")
    if not checkpoint_files.data_files(prefix):
        raise ValueError(f"--{flag}: {prefix}.index is there but its .data files are not; copy them beside it")
    try:
        return variable_names.TensorFlowReader(prefix)
    except _READ_ERRORS as error:
        raise ValueError(f"--{flag}: {prefix} cannot be read: {error_reason(error)}") from None


def open_whole(prefix: str, flag: str, names: Optional[Iterable[str]] = None) -> CheckpointReader:
    """open_reader, and reads tensors (default: all), which compares their CRCs. ValueError if one is damaged."""
    reader = open_reader(prefix, flag)
    for name in sorted(reader.get_variable_to_shape_map() if names is None else names):
        try:
            reader.get_tensor(name)
        except _READ_ERRORS as error:
            raise ValueError(f"--{flag}: {prefix} is damaged: {name} cannot be read: {error_reason(error)}") from None
    return reader


def compare_variables(reader: CheckpointReader, expected: Mapping[str, Iterable[int]]) -> VariableComparison:
    """Sorts float32 variables (name -> shape) into matched, missing, misshaped and extra; each counts once.

    Other floats match, too: the reader returns them as float32.
    """
    dtypes = reader.get_variable_to_dtype_map()
    held = {
        name: f"{list(shape)}{_dtype_name(dtypes[name])}" for name, shape in reader.get_variable_to_shape_map().items()
    }
    needed = {name: f"{list(shape)}" for name, shape in expected.items()}
    differing = [name for name in needed if name in held and needed[name] != held[name]]
    matched = [name for name in needed if name in held and name not in differing]
    return VariableComparison(
        matched=matched,
        missing=[name for name in needed if name not in held],
        misshaped=[f"{name}: checkpoint {held[name]}, model {needed[name]}" for name in differing],
        extra=sorted(set(held) - set(needed)),
        cast={name: dtypes[name].name for name in matched if dtypes[name] != tf.float32},
    )


def _dtype_name(dtype: tf.DType) -> str:
    """The name of a type that is not read as float32."""
    return "" if dtype in (tf.float32, *variable_names.CAST_DTYPES) else f" {dtype.name}"


def check_model(prefix: str, flag: str, shapes: Mapping[str, Shape]) -> None:
    """ValueError unless the checkpoint holds every variable of the model, whole and in its shape."""
    check_shapes(prefix, flag, shapes)
    open_whole(prefix, flag, shapes)


def check_shapes(prefix: str, flag: str, shapes: Mapping[str, Shape]) -> None:
    """check_model without reading the tensors, for a checkpoint that was found whole."""
    reader = open_reader(prefix, flag)
    found = compare_variables(reader, shapes)
    wrong = found.misshaped + [f"{name}: not in the checkpoint" for name in found.missing]
    if wrong:
        raise ValueError(
            f"--{flag}: {prefix} holds another model: {wrong[0]}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}; "
            f"{_remedy(reader, found, shapes) or 'only a model with these can be used here'}"
        )


def find_newest(output_dir: str) -> NewestCheckpoint:
    """The checkpoint that the file `checkpoint` names, or the one before it where that one is missing or damaged.

    ValueError where there are checkpoints but none is whole: a new start would lose that work.
    """
    state = _listed_prefixes(output_dir)
    present = sorted(checkpoint_files.prefixes(output_dir), key=_checkpoint_age)
    problems: list[str] = []
    for prefix in dict.fromkeys([*reversed(state), *reversed(present)]):
        problem = _why_not_whole(prefix)
        if problem is None:
            history = state if prefix in state else present
            kept = tuple(one for one in history[: history.index(prefix) + 1] if _is_own(one, output_dir))
            return NewestCheckpoint(
                prefix, holds_run(prefix), kept, tuple(_notices_of_newest(output_dir, prefix, problems, bool(state)))
            )
        problems.append(problem)
    if problems:
        raise ValueError(
            f"--output_dir: no checkpoint in {output_dir} is whole: {'; '.join(problems)}. Put a whole one back, or "
            f"move these and {os.path.join(output_dir, checkpoint_files.STATE_FILE)} away to start anew"
        )
    return NewestCheckpoint()


def check_state(prefix: str, names: Iterable[str]) -> None:
    """ValueError unless the checkpoint in output_dir holds all variables of a run, the optimizer's included."""
    reader = open_reader(prefix, "output_dir")
    missing = [name for name in names if not reader.has_tensor(name)]
    if missing:
        raise ValueError(
            f"--output_dir: {prefix} lacks {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; give "
            f"the --optimizer_type with which it was made, or start in another directory with it as --init_checkpoint"
        )


def step_of(prefix: Optional[str]) -> int:
    """The update after which a checkpoint was written; 0 without a checkpoint or without a global_step in it."""
    reader = open_reader(prefix, "init_checkpoint") if prefix else None
    return int(reader.get_tensor("global_step")) if reader and reader.has_tensor("global_step") else 0


def updates_read_by(prefix: Optional[str]) -> int:
    """Updates read from the data before a run's checkpoint was written, skipped ones included."""
    return step_of(prefix) + (int(open_reader(prefix, "output_dir").get_tensor(_OWN_VARIABLE)) if prefix else 0)


def error_reason(error: Exception) -> str:
    """What TensorFlow or the operating system says is wrong, in one line and without the graph's node."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    before_node = re.search(r"([^\n]+)\n\s*\[\[", text)
    return before_node[1] if before_node else re.split(r"[\n\r]", text)[0]


def _listed_prefixes(directory: str) -> list[str]:
    """Prefixes that the file `checkpoint` lists, oldest first, up to the one that it names; [] if it is unreadable."""
    with plain_name(directory) as plain:
        try:
            state = tf.train.get_checkpoint_state(plain)
        except ValueError:
            state = None
        if state is None:
            return []
        named, *listed = (
            directory + path[len(plain) :] if path.startswith(os.path.join(plain, "")) else path
            for path in (state.model_checkpoint_path, *state.all_model_checkpoint_paths)
        )
    return [*listed[: listed.index(named) if named in listed else None], named]


def _why_not_whole(prefix: str) -> Optional[str]:
    """Why a checkpoint cannot be continued, or None for a whole one."""
    if not checkpoint_files.has_index(prefix):
        return f"{prefix} does not exist, although the file `checkpoint` names it"
    try:
        open_whole(prefix, "output_dir")
    except ValueError as error:
        return str(error).partition(": ")[2]
    return None


def _notices_of_newest(output_dir: str, prefix: str, problems: Iterable[str], has_state: bool) -> Iterator[str]:
    yield from (f"{problem}; taking {prefix}" for problem in problems)
    if not has_state:
        yield f"{output_dir} has no readable file `checkpoint`; taking {prefix}, the newest there"


def holds_run(prefix: str) -> bool:
    """False for a checkpoint that can be read and is not of this program: Google's or MLPerf's."""
    try:
        return open_reader(prefix, "output_dir").has_tensor(_OWN_VARIABLE)
    except ValueError:
        return True


def keep_published(prefix: str) -> None:
    """Keeps a published checkpoint at `prefix` as published-NAME, too: a run is about to save one of that name."""
    if checkpoint_files.has_index(prefix) and not holds_run(prefix):
        directory, name = os.path.split(prefix)
        checkpoint_files.link_checkpoint(prefix, os.path.join(directory, f"published-{name}"))


def _is_own(prefix: str, output_dir: str) -> bool:
    """True for checkpoints that this program wrote into output_dir: only those may be removed."""
    is_named_so = prefix == checkpoint_files.prefix_of(output_dir, checkpoint_files.step_in_name(prefix))
    return is_named_so and checkpoint_files.has_index(prefix) and holds_run(prefix)


def _checkpoint_age(prefix: str) -> tuple[bool, int]:
    """Sorts checkpoints of a directory: those of runs after published ones, then by update."""
    return holds_run(prefix), checkpoint_files.step_in_name(prefix)


def _other_checkpoints(prefix: str) -> str:
    directory = os.path.dirname(prefix) or "."
    found = checkpoint_files.prefixes(directory)
    if not os.path.isdir(directory):
        return f" (nor does {directory})"
    if not found:
        return f"; {directory} holds no checkpoint"
    return f"; give a prefix without .index or .data, as {found[-1]}"


class InitCheckpoint(NamedTuple):
    """A checkpoint that fits."""

    report: Optional[str]  # a line for the user
    stored: dict[str, CheckpointReader]  # by variable, for initialize_variables


def find_start_values(
    run: RunConfig, weights: Mapping[str, tf.Variable], continued: Optional[str], published: Optional[str]
) -> InitCheckpoint:
    """The variables of the default graph that start from a checkpoint, and a report on them.

    All of them start from `continued`, the prefix of a previous start's checkpoint. Without one it is the weights, from
    `published` or --init_checkpoint, and with --init_optimizer_state the optimizer's slots. ValueError, one line, for
    what does not fit.
    """
    variables = {one.op.name: one for one in tf.compat.v1.global_variables()}
    if continued is not None:
        # Estimator itself would restore what the file `checkpoint` names, even where that checkpoint is damaged.
        check_state(continued, variables)
        return InitCheckpoint(None, dict.fromkeys(variables, open_reader(continued, "output_dir")))
    prefix = published or run.init_checkpoint
    if not prefix:
        return InitCheckpoint(None, {})
    slots = {}
    if run.init_optimizer_state:
        own = (*weights, "global_step")
        slots = {n: one for n, one in variables.items() if n not in own and not n.startswith("loss_scale")}
    return load_init_checkpoint(prefix, weights, slots, run.allow_partial_init)


def load_init_checkpoint(
    prefix: str, weights: Mapping[str, tf.Variable], slots: Mapping[str, tf.Variable], allow_partial: bool
) -> InitCheckpoint:
    """Opens and checks a checkpoint from whose values the variables are to start.

    weights are always loaded; slots holds the optimizer's variables with --init_optimizer_state, else nothing.
    ValueError where a variable is missing or has another shape, unless allow_partial.
    """
    shapes = {name: static_shape(variable) for name, variable in {**weights, **slots}.items()}
    prefix = resolve_prefix(prefix)
    reader = open_reader(prefix, "init_checkpoint")
    found = compare_variables(reader, shapes)
    problems = [
        f"{len(names)} {kind} ({_first_names(names)})"
        for kind, names in (("missing", found.missing), ("of another shape", found.misshaped))
        if names
    ]
    report = f"init_checkpoint {prefix}: {_count_matched(found.matched, weights, slots)}"
    if not set(found.matched) & set(weights):
        remedy = _remedy(reader, found, weights) or "give a checkpoint of BERT"
        raise ValueError(f"--{report}, {', '.join(problems)}; {remedy}, or leave --init_checkpoint out")
    if problems and not allow_partial:
        remedy = _remedy(reader, found, weights)
        partial = f"--allow_partial_init starts those at random; not used: {_first_names(found.extra) or 'nothing'}"
        raise ValueError(f"--{report}, {', '.join(problems)}; {f'{remedy}, or: ' if remedy else ''}{partial}")
    open_whole(prefix, "init_checkpoint", found.matched)
    notes = [*problems, f"{len(found.extra)} of its tensors not used{_kinds_of_extra(found.extra)}"]
    renamed = [reader.renamed[name] for name in found.matched if name in reader.renamed]
    if renamed:
        notes.append(f"{len(renamed)} found under other names ({_first_names(renamed)})")
    if found.cast:
        notes.append(f"{len(found.cast)} cast from {' and '.join(sorted(set(found.cast.values())))}")
    return InitCheckpoint(", ".join([report, *notes]), dict.fromkeys(found.matched, reader))


def _remedy(reader: CheckpointReader, found: VariableComparison, weights: Iterable[str]) -> str:
    """What mends what does not fit of a checkpoint; empty where it simply has no more than it has."""
    if found.misshaped:
        return _GIVE_ITS_CONFIG
    missing = [name for name in weights if name in found.missing]
    if not missing:
        return "give the --optimizer_type with which it was made"
    held = {layer for layer in map(_layer_of, found.matched) if layer}
    if held and all(_layer_of(name) and _layer_of(name) not in held for name in missing):
        return (
            f"the checkpoint has {len(held)} layers: give its own bert_config.json (config.json) as --bert_config_file"
        )
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    unused = [name for name in found.extra if dtypes[name].is_floating and shapes[name] and not _is_any_slot(name)]
    if not unused or (held and all(name.startswith(_HEADS) for name in missing)):
        return ""
    pairs = [f"{name} (perhaps {variable_names.closest_name(name, unused)})" for name in missing[:_SHOWN_VARIABLES]]
    return (
        f"this naming is not known: the model needs {', '.join(pairs)}; save the checkpoint with the model's names "
        f"(docs/training.md, Names of variables)"
    )


def _layer_of(name: str) -> Optional[str]:
    match = re.match(r"bert/encoder/layer_(\d+)/", name)
    return match[1] if match else None


def _is_any_slot(name: str) -> bool:
    return optimizers.is_slot(name) or variable_names.is_foreign_slot(name)


def _count_matched(matched: Iterable[str], weights: Mapping[str, tf.Variable], slots: Mapping[str, tf.Variable]) -> str:
    matched = set(matched)
    text = f"{len(matched & set(weights))} of {len(weights)} variables matched"
    if slots:
        text += f", {len(matched & set(slots))} of {len(slots)} of the optimizer's"
    return text


def _kinds_of_extra(names: list[str]) -> str:
    """' (796 slots, beta1_power, beta2_power, global_step)' and the like."""
    slots = [name for name in names if _is_any_slot(name)]
    others = [name for name in names if name not in slots]
    parts = ([f"{len(slots)} optimizer slots"] if slots else []) + ([_first_names(others)] if others else [])
    return f" ({', '.join(parts)})" if parts else ""


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_VARIABLES]) + (", ..." if len(names) > _SHOWN_VARIABLES else "")


def initialize_variables(session: Session, stored: Mapping[str, StartValues]) -> None:
    """Gives every variable of the session's graph its first value: those named in `stored` that of the reader."""
    variables = session.graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    session.run([one.initializer for one in variables if one.op.name not in stored])
    for group in _groups_by_size([one for one in variables if one.op.name in stored]):
        # The second input of an initializer is the value that it assigns.
        values = {one.initializer.inputs[1]: stored[one.op.name].get_tensor(one.op.name) for one in group}
        session.run([one.initializer for one in group], values)


def make_scaffold(stored: Mapping[str, StartValues], global_step: tf.Variable) -> Scaffold:
    """Makes Estimator's session start with `initialize`.

    Without it, Estimator would add a Saver of all variables to the graph, and questions whether each is initialized.
    """
    nothing_missing = tf.constant([], tf.string)
    return Scaffold(
        init_op=tf.no_op(),
        init_fn=lambda _, session: initialize_variables(session, stored),
        ready_op=nothing_missing,
        ready_for_local_init_op=nothing_missing,
        saver=tf.compat.v1.train.Saver([global_step]),  # never used
    )


def _groups_by_size(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Variable]]:
    """The variables in order, in groups of about _GROUP_BYTES."""
    group, size = [], 0
    for variable in variables:
        group.append(variable)
        size += variable.shape.num_elements() * variable.dtype.size
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
