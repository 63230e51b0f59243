"""TF1 checkpoints on disk: saving, finding the newest, checking that it is complete and holds the model.

A checkpoint is a prefix with an `.index` and one or more `.data-?????-of-?????` files. TensorFlow writes each under
a temporary name and renames it, the index last, so one that has an index and all its data is complete.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional, Tuple

import tensorflow as tf

from bert_pretrain.config.training import RunConfig

Shape = Tuple[int, ...]


class CheckpointSaver:
    """Saves checkpoints that are complete or absent, and keeps the newest --keep_checkpoint_max."""

    def __init__(self, run: RunConfig) -> None:
        self._prefix = os.path.join(run.output_dir, "model.ckpt")
        self.saver = tf.compat.v1.train.Saver(  # the Scaffold restores with it too
            max_to_keep=run.keep_checkpoint_max, save_relative_paths=True, sharded=False
        )
        self.saved_step = -1  # of the newest checkpoint

    def save(self, session: tf.compat.v1.Session, step: int) -> None:
        """Saves unless this step is saved already. ValueError where the checkpoint cannot be written."""
        if step == self.saved_step:
            return
        try:
            self.saver.save(session, self._prefix, global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise ValueError(
                f"--output_dir: checkpoint {self._prefix}-{step} cannot be written: {_first_line(error)}; "
                f"earlier checkpoints are untouched"
            ) from None
        self.saved_step = step


class Comparison(NamedTuple):
    """Expected variables compared with those that a checkpoint holds."""

    matched: list[str]
    missing: list[str]
    misshaped: list[str]  # "name: checkpoint [2, 3], model [4, 3]"
    extra: list[str]


def open_reader(prefix: str, flag: str) -> tf.train.CheckpointReader:
    """A reader of a complete checkpoint. ValueError, naming the flag, says what is missing or unreadable."""
    if not os.path.exists(f"{prefix}.index"):
        raise ValueError(f"--{flag}: {prefix}.index does not exist{_other_checkpoints(prefix)}")
    if not glob.glob(f"{glob.escape(prefix)}.data-*-of-*"):
        raise ValueError(f"--{flag}: {prefix}.index is there but its .data files are not; copy them beside it")
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"--{flag}: {prefix} cannot be read: {_first_line(error)}") from None


def compare(reader: tf.train.CheckpointReader, expected: Mapping[str, Iterable[int]]) -> Comparison:
    """Sorts float32 variables (name -> shape) into matched, missing, misshaped and extra; each counts once."""
    dtypes = reader.get_variable_to_dtype_map()
    held = {name: f"{list(shape)}{_dtype(dtypes[name])}" for name, shape in reader.get_variable_to_shape_map().items()}
    needed = {name: f"{list(shape)}" for name, shape in expected.items()}
    differing = [name for name in needed if name in held and needed[name] != held[name]]
    return Comparison(
        matched=[name for name in needed if name in held and name not in differing],
        missing=[name for name in needed if name not in held],
        misshaped=[f"{name}: checkpoint {held[name]}, model {needed[name]}" for name in differing],
        extra=sorted(set(held) - set(needed)),
    )


def _dtype(dtype: tf.DType) -> str:
    """The name of a type other than float32, which all loaded variables must have."""
    return "" if dtype == tf.float32 else f" {dtype.name}"


def check_model(prefix: str, flag: str, shapes: Mapping[str, Shape]) -> None:
    """ValueError unless the checkpoint holds every variable of the model in its shape."""
    found = compare(open_reader(prefix, flag), shapes)
    wrong = found.misshaped + [f"{name}: not in the checkpoint" for name in found.missing]
    if wrong:
        raise ValueError(
            f"--{flag}: {prefix} holds another model: {wrong[0]}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}; "
            f"give the --bert_config_file with which it was made"
        )


def newest(output_dir: str) -> Optional[str]:
    """Prefix of the checkpoint to continue from, or None in a directory that has none.

    ValueError where there are checkpoints but the newest is unknown or incomplete: a new start would lose that work.
    """
    state = tf.train.get_checkpoint_state(output_dir)
    prefix = state.model_checkpoint_path if state else None
    if prefix is None:
        found = sorted(glob.glob(os.path.join(glob.escape(output_dir), "model.ckpt-*.index")))
        if found:
            raise ValueError(
                f"--output_dir: {output_dir} holds {os.path.basename(found[-1])} but no readable file "
                f"`checkpoint` that names the newest; restore that file or choose another directory"
            )
        return None
    open_reader(prefix, "output_dir")
    return prefix


def step_of(prefix: Optional[str]) -> int:
    """The update after which a checkpoint was written; 0 without a checkpoint or without a global_step in it."""
    reader = tf.train.load_checkpoint(prefix) if prefix else None
    return int(reader.get_tensor("global_step")) if reader and reader.has_tensor("global_step") else 0


def position_of(prefix: Optional[str]) -> int:
    """Updates read from the data before a checkpoint was written, skipped ones included."""
    reader = tf.train.load_checkpoint(prefix) if prefix else None
    return step_of(prefix) + (int(reader.get_tensor("loss_scale/skipped_updates")) if reader else 0)


def _other_checkpoints(prefix: str) -> str:
    directory = os.path.dirname(prefix) or "."
    found = sorted(path[: -len(".index")] for path in glob.glob(os.path.join(glob.escape(directory), "*.index")))
    if not os.path.isdir(directory):
        return f" (nor does {directory})"
    if not found:
        return f"; {directory} holds no checkpoint"
    return f"; give a prefix without .index or .data, as {found[-1]}"


def _first_line(error: Exception) -> str:
    return re.split(r"[\n\r]", str(error).strip())[0]
