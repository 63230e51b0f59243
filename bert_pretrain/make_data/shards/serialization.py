"""Serializes many records at once as tf.train.Example messages.

Encoding: https://protobuf.dev/programming-guides/encoding. The features of a record are a map, whose entries may have
any order. The order here is the one in which protobuf 4.21 to 5.29 writes these seven keys from Python, so that files
equal those of Google's script byte for byte. Under older and newer protobuf that script's order varies from run to run.
"""

from __future__ import annotations

import functools

import numpy as np

from bert_pretrain.data.masking import Masking
from bert_pretrain.make_data.shards.instances import Instances

_LENGTH_DELIMITED = 2
_MAP_ORDER = (
    "masked_lm_ids", "input_ids", "masked_lm_positions", "next_sentence_labels", "input_mask", "masked_lm_weights",
    "segment_ids",
)  # fmt: skip


def serialize_examples(instances: Instances, masking: Masking) -> list[bytes]:
    """The records of E instances."""
    seq_length, max_predictions = masking.input_ids.shape[1], masking.positions.shape[1]
    zeros, ones = bytes(max(seq_length, max_predictions)), b"\1" * seq_length
    labels, masks, weights = _whole_entries(seq_length, max_predictions)
    segments_head = _entry_head("segment_ids", seq_length)
    ids_head, input_head, positions_head = (functools.partial(_entry_head, name) for name in _MAP_ORDER[:3])
    rows = zip(
        _varints(masking.ids, masking.num_masked),
        _varints(masking.input_ids, instances.num_tokens),
        _varints(masking.positions, masking.num_masked),
        instances.num_first.tolist(),
        instances.num_tokens.tolist(),
        masking.num_masked.tolist(),
        instances.is_random_next.tolist(),
    )
    return [
        _message(
            (
                ids_head(len(ids) + max_predictions - num_masked), ids, zeros[: max_predictions - num_masked],
                input_head(len(input_ids) + seq_length - num_tokens), input_ids, zeros[: seq_length - num_tokens],
                positions_head(len(positions) + max_predictions - num_masked), positions,
                zeros[: max_predictions - num_masked],
                labels[is_random_next],
                masks[num_tokens],
                weights[num_masked],
                segments_head, zeros[:num_first], ones[num_first:num_tokens], zeros[: seq_length - num_tokens],
            )
        )
        for ids, input_ids, positions, num_first, num_tokens, num_masked, is_random_next in rows
    ]  # fmt: skip


@functools.lru_cache(maxsize=8)
def _whole_entries(seq_length: int, max_predictions: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The entries of labels, by label, and of masks and weights, by the number of ones at their beginning."""
    return (
        [_entry("next_sentence_labels", bytes([label])) for label in (0, 1)],
        [_entry("input_mask", b"\1" * num + bytes(seq_length - num)) for num in range(seq_length + 1)],
        [
            _entry("masked_lm_weights", np.repeat([1, 0], [num, max_predictions - num]).astype("<f4").tobytes())
            for num in range(max_predictions + 1)
        ],
    )


def _message(parts: tuple[bytes, ...]) -> bytes:
    features = b"".join(parts)
    return _features_head(len(features)) + features


def _entry(name: str, payload: bytes) -> bytes:
    return _entry_head(name, len(payload)) + payload


@functools.lru_cache(maxsize=None)
def _features_head(size: int) -> bytes:
    return _field(1, size)  # Example.features


@functools.lru_cache(maxsize=None)
def _entry_head(name: str, size: int) -> bytes:
    """Everything before the packed values of one feature: a map entry of name and Feature."""
    values = _field(1, size)  # Int64List.value or FloatList.value, packed
    kind = (
        _field(2 if name == "masked_lm_weights" else 3, len(values) + size) + values
    )  # Feature.float_list, int64_list
    key = _field(1, len(name)) + name.encode()
    value = _field(2, len(kind) + size) + kind
    return _field(1, len(key) + len(value) + size) + key + value  # Features.feature


def _field(number: int, size: int) -> bytes:
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varints(values: np.ndarray, num_used: np.ndarray) -> list[bytes]:
    """The first num_used [E] integers of each row [E, W], in [0, 2**28), as packed varints.

    A varint has seven bits a byte, low bits first. The integers that are left out are 0, which is one byte of 0 each.
    """
    is_used = np.arange(values.shape[1]) < num_used[:, None]
    table, sizes = _varint_table(1 << int(values.max(initial=0)).bit_length())
    encoded = table.take(values[is_used]).view(np.uint8)
    # A varint's last byte holds its high bits, which are not 0, and its other bytes have the continuation bit set.
    is_byte = encoded != 0
    is_byte[::4] = True  # except that 0 is one byte of 0
    flat = np.compress(is_byte, encoded).tobytes()
    ends = np.cumsum((sizes.take(values) * is_used).sum(axis=1)).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends)]


@functools.lru_cache(maxsize=8)
def _varint_table(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Varints of 0, 1, ... as four bytes each, padded with zeros, uint32 [size]; the length of each, uint8 [size]."""
    assert size <= 1 << 28
    values = np.arange(size, dtype=np.uint32)
    table = np.zeros((size, 4), np.uint8)
    for byte in range(4):
        rest = values >> np.uint32(7 * byte)
        more = (rest >= 128).astype(np.uint8) << 7
        table[:, byte] = (rest & 127).astype(np.uint8) | more
    return table.view("<u4").ravel(), np.maximum(np.count_nonzero(table, axis=1), 1).astype(np.uint8)
