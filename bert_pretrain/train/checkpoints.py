"""TF1 checkpoints on disk: which is the newest, is it whole, does it hold the expected variables.

A checkpoint is a prefix with an `.index` and one or more `.data-?????-of-?????` files. TensorFlow writes each under
a temporary name and renames it, the index last, so one that has an index and all its data is complete.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

import tensorflow as tf

Shape = tuple[int, ...]


class Comparison(NamedTuple):
    """Wanted variables against those that a checkpoint holds."""

    matched: list[str]
    missing: list[str]
    misshaped: list[str]  # "name: checkpoint [2, 3], model [4, 3]"
    extra: list[str]


def open_reader(prefix: str, flag: str) -> tf.train.CheckpointReader:
    """A reader of a complete checkpoint. ValueError, naming the flag, says what is missing or unreadable."""
    if not os.path.exists(f"{prefix}.index"):
        raise ValueError(f"--{flag}: {prefix}.index does not exist{_neighbours(prefix)}")
    if not glob.glob(f"{glob.escape(prefix)}.data-*-of-*"):
        raise ValueError(f"--{flag}: {prefix}.index is there but its .data files are not; copy them beside it")
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"--{flag}: {prefix} cannot be read: {_first_line(error)}") from None


def compare(reader: tf.train.CheckpointReader, wanted: Mapping[str, Iterable[int]]) -> Comparison:
    """Sorts float32 variables into matched, missing, mis-shaped and extra; each counts once."""
    dtypes = reader.get_variable_to_dtype_map()
    held = {name: f"{list(shape)}{_dtype(dtypes[name])}" for name, shape in reader.get_variable_to_shape_map().items()}
    needed = {name: f"{list(shape)}" for name, shape in wanted.items()}
    differing = [name for name in needed if name in held and needed[name] != held[name]]
    return Comparison(
        matched=[name for name in needed if name in held and name not in differing],
        missing=[name for name in needed if name not in held],
        misshaped=[f"{name}: checkpoint {held[name]}, model {needed[name]}" for name in differing],
        extra=sorted(set(held) - set(needed)),
    )


def _dtype(dtype: tf.DType) -> str:
    """Nothing for float32, which everything that is loaded has."""
    return "" if dtype == tf.float32 else f" {dtype.name}"


def check_model(prefix: str, flag: str, shapes: Mapping[str, Shape]) -> None:
    """ValueError unless the checkpoint holds every variable of the model in its shape."""
    found = compare(open_reader(prefix, flag), shapes)
    wrong = found.misshaped + [f"{name}: not in the checkpoint" for name in found.missing]
    if wrong:
        raise ValueError(
            f"--{flag}: {prefix} is another model's: {wrong[0]}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}; "
            f"give the --bert_config_file with which it was made"
        )


def newest(output_dir: str) -> Optional[str]:
    """Prefix of the checkpoint to continue from, or None in a directory that has none.

    ValueError where checkpoints are there but the newest cannot be told or is not whole: starting afresh would
    lose that work.
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
    """The update after which a checkpoint was written; 0 without a checkpoint or where it does not say."""
    reader = tf.train.load_checkpoint(prefix) if prefix else None
    return int(reader.get_tensor("global_step")) if reader and reader.has_tensor("global_step") else 0


def position_of(prefix: Optional[str]) -> int:
    """Updates read from the data before a checkpoint of this project was written: the skipped ones count too."""
    reader = tf.train.load_checkpoint(prefix) if prefix else None
    return step_of(prefix) + (int(reader.get_tensor("loss_scale/skipped_updates")) if reader else 0)


def _neighbours(prefix: str) -> str:
    directory = os.path.dirname(prefix) or "."
    found = sorted(path[: -len(".index")] for path in glob.glob(os.path.join(glob.escape(directory), "*.index")))
    if not os.path.isdir(directory):
        return f" (nor does {directory})"
    if not found:
        return f"; {directory} holds no checkpoint"
    return f"; give a prefix without .index or .data, as {found[-1]}"


def _first_line(error: Exception) -> str:
    return re.split(r"[\n\r]", str(error).strip())[0]
