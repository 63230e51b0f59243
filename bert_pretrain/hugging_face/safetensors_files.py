"""BERT's weights of a Hugging Face folder: finding them, reading safetensors files, and the names of TF1 checkpoints.

No TensorFlow at import: pretrain_text looks at the names of tensors without it.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_pretrain.hugging_face import names
from bert_pretrain.system.files import open_regular, plain_name

if TYPE_CHECKING:
    import tensorflow as tf

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
_PICKLES = "pytorch_model*.bin"  # also pytorch_model-00001-of-00002.bin
# Files of other programs' weights -> from_pretrained's argument that reads them, in transformers 4.
_OTHER_FORMATS = {"tf_model.h5": "from_tf", "flax_model.msgpack": "from_flax"}
_CONVERSION = (
    'convert it where torch and transformers are installed: python -c "from transformers import '
    "AutoModelForPreTraining as M; M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\", and give NEW_FOLDER"
)
# The format's name of a type -> TensorFlow's.
_DTYPES = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64",
    "I64": "int64", "I32": "int32", "I8": "int8", "U8": "uint8", "BOOL": "bool",
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
    for name, argument in _OTHER_FORMATS.items():
        if os.path.isfile(path if os.path.basename(path) == name else os.path.join(path, name)):
            how = _CONVERSION.replace("'FOLDER')", f"'FOLDER', {argument}=True)")
            raise ValueError(f"--{flag}: {path} holds {name}, which is not read here; {how} (transformers 4)")
    if os.path.isfile(os.path.join(path, "config.json")):
        raise ValueError(f"--{flag}: {path} holds a config.json but no {WEIGHTS}; give a folder with both")
    return None


class SafetensorsReader:
    """What TensorFlowReader (checkpoints/variable_names.py) is, for safetensors files."""

    renamed: Mapping[str, str] = MappingProxyType({})  # all have other names; that is this format's way

    def __init__(self, path: str, flag: str) -> None:
        """ValueError, naming the flag, for a file that cannot be read or holds one variable with two values."""
        self._stored: dict[str, StoredTensor] = {}  # by variable; tensors that are none of BERT's keep their names
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
        """Variable -> the type in the file."""
        import tensorflow as tf

        return {variable: tf.as_dtype(_DTYPES.get(tensor.dtype, "string")) for variable, tensor in self._stored.items()}

    def has_tensor(self, variable: str) -> bool:
        """True if the files hold the variable."""
        return variable in self._stored

    def get_tensor(self, variable: str) -> np.ndarray:
        """A variable's value as in a TF1 checkpoint; float32 for other floats."""
        return names.convert_value(variable, self._stored[variable].read())


class StoredTensor:
    """A tensor of an open file; it is read when it is asked for."""

    def __init__(self, file: Any, path: str, name: str) -> None:
        self._file, self._path = file, path
        self.name = name
        part = file.get_slice(name)
        self.shape: list[int] = list(part.get_shape())
        self.dtype: str = part.get_dtype()  # the format's name, such as F32 or BF16

    def read(self) -> np.ndarray:
        """The value; float32 for other floats, which holds float16 and bfloat16 exactly."""
        if self.dtype == "BF16":
            return _read_bfloat16(self._path, self.name)
        value = self._file.get_tensor(self.name)
        return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value


def open_tensors(path: str, flag: str) -> Iterator[StoredTensor]:
    """All tensors of a safetensors file, or of a model.safetensors.index.json.

    ValueError, naming the flag, for a file that is missing, damaged or lacks what the index says of it.
    """
    if not path.endswith(".json"):
        file = _open_file(path, flag)
        yield from (StoredTensor(file, path, name) for name in file.keys())  # noqa: SIM118 (it is no mapping)
        return
    shards: dict[str, Any] = {}
    for name, shard in _weight_map(path, flag).items():
        place = os.path.join(os.path.dirname(path), shard)
        if shard not in shards:
            shards[shard] = _open_file(place, flag)
        try:
            yield StoredTensor(shards[shard], place, name)
        except SafetensorError:
            raise ValueError(f"--{flag}: {place} lacks {name}, which {path} names; copy the folder again") from None


def _weight_map(path: str, flag: str) -> Mapping[str, str]:
    """Tensor -> name of a file beside the index."""
    try:
        with open_regular(path) as file:
            found = json.load(file)["weight_map"]
    except OSError as error:
        raise ValueError(f"--{flag}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"--{flag}: {path} is no index: it has no object weight_map; copy the folder again") from None
    if not isinstance(found, dict) or not all(
        isinstance(shard, str) and os.path.basename(shard) == shard for shard in found.values()
    ):
        raise ValueError(f"--{flag}: {path}: weight_map must name a file of the same folder for each tensor")
    return found


def _open_file(path: str, flag: str) -> Any:
    try:
        with plain_name(path) as plain:
            return safe_open(plain, framework="numpy")
    except (OSError, SafetensorError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ValueError(f"--{flag}: {path} cannot be read: {what}") from None


def _read_bfloat16(path: str, name: str) -> np.ndarray:
    """A bfloat16 tensor as float32. NumPy has no such type, so the library refuses to read it into an array.

    A file is the length of a header, 8 bytes, the header, JSON, and the data. The library has checked all of them.
    """
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_bytes))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + header_bytes + begin)
        bits = np.frombuffer(file.read(end - begin), "<u2")
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
