"""The settings of a run for TensorBoard: a table for each part under Text, and all of them under HParams.

TensorBoard is not imported: TensorFlow 2.21 does not bring it. The wire format of its HParams message is that of
tensorboard/plugins/hparams/plugin_data.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from google.protobuf.struct_pb2 import Struct

PREFIX = "settings/"
_HPARAMS_TAG = "_hparams_/session_start_info"
_TENSOR_CLASS = 2  # SummaryMetadata's DATA_CLASS_TENSOR
_SESSION_START_INFO = b"\x1a"  # HParamsPluginData: field 3, a message


def values(settings: Mapping[str, Mapping[str, Any]]) -> list[tf.compat.v1.Summary.Value]:
    """The values of one summary: settings/PART for each part, and the hyperparameters."""
    texts = [_value(f"{PREFIX}{part}", "text", b"", _table(fields), tf.string) for part, fields in settings.items()]
    return [*texts, _value(_HPARAMS_TAG, "hparams", _session_start(settings), 0.0, tf.float32)]


def _value(tag: str, plugin: str, content: bytes, tensor: Any, dtype: tf.DType) -> tf.compat.v1.Summary.Value:
    value = tf.compat.v1.Summary.Value(tag=tag, tensor=tf.make_tensor_proto(tensor, dtype))
    value.metadata.plugin_data.plugin_name, value.metadata.plugin_data.content = plugin, content
    value.metadata.data_class = _TENSOR_CLASS
    return value


def _table(fields: Mapping[str, Any]) -> str:
    """Markdown."""
    return "\n".join(["| flag | value |", "|---|---|", *(f"| --{name} | {value} |" for name, value in fields.items())])


def _session_start(settings: Mapping[str, Mapping[str, Any]]) -> bytes:
    """An HParamsPluginData with a SessionStartInfo. Field 1 of both that and a Struct is a map<string, Value>."""
    fields = Struct()
    for part in settings.values():
        fields.update({name: value for name, value in part.items() if value is not None})
    content = fields.SerializeToString(deterministic=True)
    return _SESSION_START_INFO + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Protocol Buffers' encoding of a number: seven bits a byte, the lowest first."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
