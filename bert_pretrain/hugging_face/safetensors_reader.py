"""Reads BERT's weights of a Hugging Face folder or a safetensors file under the names of TF1 checkpoints."""

from __future__ import annotations

import os
from typing import Optional

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError, safe_open

from bert_pretrain.hugging_face import names

WEIGHTS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_CONVERSION = (
    'convert it where torch and transformers are installed: python -c "from transformers import '
    "AutoModelForPreTraining as M; M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\", and give NEW_FOLDER"
)
# float16 becomes float32, exactly.
_DTYPES = {
    "F32": tf.float32, "F16": tf.float32, "BF16": tf.bfloat16, "F64": tf.float64,
    "I64": tf.int64, "I32": tf.int32, "U8": tf.uint8, "BOOL": tf.bool,
}  # fmt: skip


def find_weights(path: str, flag: str) -> Optional[str]:
    """The safetensors file that `path`, a folder or a file, names; None if it is none of Hugging Face's.

    ValueError for a folder whose weights are in another format.
    """
    if path.endswith(".safetensors"):
        return path
    found = os.path.join(path, WEIGHTS)
    if os.path.isfile(found):
        return found
    pickled = path if path.endswith(".bin") else os.path.join(path, _PICKLED)
    if os.path.isfile(pickled):
        raise ValueError(f"--{flag}: {pickled} is a pickle, which can run code when it is read; {_CONVERSION}")
    if os.path.isfile(os.path.join(path, "config.json")):
        raise ValueError(f"--{flag}: {path} holds a config.json but no {WEIGHTS}; give a folder with both")
    return None


class SafetensorsReader:
    """The methods of tf.train.CheckpointReader that this program uses, on a safetensors file."""

    def __init__(self, path: str, flag: str) -> None:
        """ValueError, naming the flag, for a file that cannot be read or holds one variable with two values."""
        try:
            self._file = safe_open(path, framework="numpy")
        except (OSError, SafetensorError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise ValueError(f"--{flag}: {path} cannot be read: {what}") from None
        self._stored: dict[str, str] = {}  # variable -> a tensor's name in the file; others keep theirs
        for name in self._file.keys():  # noqa: SIM118 (it is no mapping)
            variable = names.variable_name(name) or name
            first = self._stored.setdefault(variable, name)
            if first != name and not np.array_equal(self._file.get_tensor(first), self._file.get_tensor(name)):
                raise ValueError(
                    f"--{flag}: {path}: {first} and {name} differ; BERT has one variable for both, {variable}: "
                    f"this model is of another kind"
                )

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Variable -> shape, as in a TF1 checkpoint."""
        shapes = {variable: list(self._file.get_slice(name).get_shape()) for variable, name in self._stored.items()}
        return {name: shape[::-1] if names.is_transposed(name) else shape for name, shape in shapes.items()}

    def get_variable_to_dtype_map(self) -> dict[str, tf.DType]:
        """Variable -> the type in which get_tensor returns it."""
        dtypes = {variable: self._file.get_slice(name).get_dtype() for variable, name in self._stored.items()}
        return {variable: _DTYPES.get(dtype, tf.string) for variable, dtype in dtypes.items()}

    def has_tensor(self, variable: str) -> bool:
        """True if the file holds the variable."""
        return variable in self._stored

    def get_tensor(self, variable: str) -> np.ndarray:
        """A variable's value as in a TF1 checkpoint, float32 for float16."""
        value = names.convert(variable, self._file.get_tensor(self._stored[variable]))
        return value.astype(np.float32) if value.dtype == np.float16 else value
