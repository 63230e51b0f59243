"""Reads BERT's weights of a Hugging Face folder or a safetensors file under the names of TF1 checkpoints."""

from __future__ import annotations

import glob
import os
from typing import Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.hugging_face import names
from bert_pretrain.hugging_face.safetensors_files import INDEX, WEIGHTS, Tensor, open_tensors

_PICKLES = "pytorch_model*.bin"  # also pytorch_model-00001-of-00002.bin
_CONVERSION = (
    'convert it where torch and transformers are installed: python -c "from transformers import '
    "AutoModelForPreTraining as M; M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\", and give NEW_FOLDER"
)
# float16 and bfloat16 become float32, exactly.
_DTYPES = {
    "F32": tf.float32, "F16": tf.float32, "BF16": tf.float32, "F64": tf.float64,
    "I64": tf.int64, "I32": tf.int32, "I8": tf.int8, "U8": tf.uint8, "BOOL": tf.bool,
}  # fmt: skip


def find_weights(path: str, flag: str) -> Optional[str]:
    """The safetensors file, or index of several, that `path`, a folder or a file, names; None if it is none of these.

    ValueError for a folder whose weights are in another format.
    """
    if path.endswith((".safetensors", ".safetensors.index.json")):
        return path
    for name in (WEIGHTS, INDEX):
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name)
    pickles = [path] if path.endswith(".bin") else sorted(glob.glob(os.path.join(glob.escape(path), _PICKLES)))
    if pickles and os.path.isfile(pickles[0]):
        raise ValueError(f"--{flag}: {pickles[0]} is a pickle, which can run code when it is read; {_CONVERSION}")
    if os.path.isfile(os.path.join(path, "config.json")):
        raise ValueError(f"--{flag}: {path} holds a config.json but no {WEIGHTS}; give a folder with both")
    return None


class SafetensorsReader:
    """The methods of tf.train.CheckpointReader that this program uses, on safetensors files."""

    def __init__(self, path: str, flag: str) -> None:
        """ValueError, naming the flag, for a file that cannot be read or holds one variable with two values."""
        self._stored: dict[str, Tensor] = {}  # by variable; tensors that are none of BERT's keep their names
        for tensor in open_tensors(path, flag):
            variable = names.variable_name(tensor.name) or tensor.name
            first = self._stored.setdefault(variable, tensor)
            if first is not tensor and not np.array_equal(first.read(), tensor.read()):
                raise ValueError(
                    f"--{flag}: {path}: {first.name} and {tensor.name} differ; BERT has one variable for both, "
                    f"{variable}: this model is of another kind"
                )

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Variable -> shape, as in a TF1 checkpoint."""
        shapes = {variable: tensor.shape for variable, tensor in self._stored.items()}
        return {name: shape[::-1] if names.is_transposed(name) else shape for name, shape in shapes.items()}

    def get_variable_to_dtype_map(self) -> dict[str, tf.DType]:
        """Variable -> the type in which get_tensor returns it."""
        return {variable: _DTYPES.get(tensor.dtype, tf.string) for variable, tensor in self._stored.items()}

    def has_tensor(self, variable: str) -> bool:
        """True if the files hold the variable."""
        return variable in self._stored

    def get_tensor(self, variable: str) -> np.ndarray:
        """A variable's value as in a TF1 checkpoint, float32 for float16 and bfloat16."""
        return names.convert(variable, self._stored[variable].read())
