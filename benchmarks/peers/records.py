"""Reads pretraining shards without TensorFlow, which may not share a process with torch here."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.references.random_examples import Examples

_HEADER_SIZE, _FOOTER_SIZE = 12, 4  # length and CRC before a record, CRC after it


def read(paths: Sequence[str]) -> Examples:
    """All records of these files."""
    columns = zip(*(_parse(record) for path in paths for record in _records(path)))
    stacked = Examples(*map(np.array, columns))
    return stacked._replace(
        masked_lm_weights=stacked.masked_lm_weights.astype(np.float32),
        next_sentence_labels=stacked.next_sentence_labels[:, 0],
    )


def _records(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while header := file.read(_HEADER_SIZE):
            yield file.read(struct.unpack("<Q", header[:8])[0])
            file.seek(_FOOTER_SIZE, 1)


def _parse(record: bytes) -> list[np.ndarray]:
    stored = _EXAMPLE.FromString(record).features.feature
    return [
        np.array(stored[name].float_list.value or stored[name].int64_list.value, np.int64) for name in Examples._fields
    ]


def _example_class() -> type:
    """tf.train.Example by its wire format (tensorflow/core/example/example.proto, feature.proto)."""
    repeated, message = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED, descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="shard", syntax="proto3")
    for name, fields in {
        "FloatList": [("value", 1, message.TYPE_FLOAT, "", repeated)],
        "Int64List": [("value", 1, message.TYPE_INT64, "", repeated)],
        "Feature": [("float_list", 2, None, "FloatList", 1), ("int64_list", 3, None, "Int64List", 1)],
        "Features": [("feature", 1, None, "Features.FeatureEntry", repeated)],
        "Example": [("features", 1, None, "Features", 1)],
    }.items():
        _add_message(file.message_type.add(), name, fields)
    entry = file.message_type[3].nested_type.add()
    _add_message(entry, "FeatureEntry", [("key", 1, message.TYPE_STRING, "", 1), ("value", 2, None, "Feature", 1)])
    entry.options.map_entry = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # protobuf 3, which TensorFlow 2.6 needs, has only the second function.
    to_class = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    return to_class(pool.FindMessageTypeByName("shard.Example"))


def _add_message(target: descriptor_pb2.DescriptorProto, name: str, fields: list[tuple]) -> None:
    target.name = name
    for field, number, kind, type_name, label in fields:
        added = target.field.add(name=field, number=number, label=label)
        if type_name:
            added.type_name = f".shard.{type_name}"
        added.type = kind or descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


_EXAMPLE = _example_class()
