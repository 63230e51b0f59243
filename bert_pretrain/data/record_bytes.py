"""Many records at once as serialized tf.train.Example messages, byte for byte what protobuf writes.

Layout: https://protobuf.dev/programming-guides/encoding. A map's entries may stand in any order; the order here is
the one in which protobuf 4's Python runtime writes these seven keys, so that files equal Google's script's.
"""

from __future__ import annotations

import functools

import numpy as np

from bert_pretrain.data.instances import Instances
from bert_pretrain.data.masking import Masking

_LENGTH_DELIMITED = 2
_MAP_ORDER = (
    "masked_lm_ids", "input_ids", "masked_lm_positions", "next_sentence_labels", "input_mask", "masked_lm_weights",
    "segment_ids",
)  # fmt: skip


def records(instances: Instances, masking: Masking) -> list[bytes]:
    """The records of E instances."""
    num_examples, seq_length = masking.input_ids.shape
    column = np.arange(seq_length)[None, :]
    is_token = column < instances.num_tokens[:, None]
    used = np.arange(masking.positions.shape[1])[None, :] < masking.num_masked[:, None]
    weights = np.where(used, np.float32(1), np.float32(0)).astype("<f4")
    payloads = {
        "input_ids": _varints(masking.input_ids),
        "input_mask": _rows(is_token.astype(np.uint8)),
        "segment_ids": _rows((is_token & (column >= instances.num_first[:, None])).astype(np.uint8)),
        "masked_lm_positions": _varints(masking.positions),
        "masked_lm_ids": _varints(masking.ids),
        "masked_lm_weights": _rows(weights.view(np.uint8)),
        "next_sentence_labels": _rows(instances.is_random_next.astype(np.uint8)[:, None]),
    }
    assert len(payloads["input_ids"]) == num_examples
    heads = [functools.partial(_entry_head, name) for name in _MAP_ORDER]
    return [_record(heads, row) for row in zip(*(payloads[name] for name in _MAP_ORDER))]


def _record(heads: list, payloads: tuple[bytes, ...]) -> bytes:
    parts = []
    for head, payload in zip(heads, payloads):
        parts.append(head(len(payload)))
        parts.append(payload)
    features = b"".join(parts)
    return _features_head(len(features)) + features


@functools.cache
def _features_head(size: int) -> bytes:
    return _field(1, size)  # Example.features


@functools.cache
def _entry_head(name: str, size: int) -> bytes:
    """All that stands before the packed values of one feature: a map entry of name and Feature."""
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


def _varints(values: np.ndarray) -> list[bytes]:
    """Each row of non-negative whole numbers as packed varints: seven bits a byte, low ones first."""
    num_bytes = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    shifts = 7 * np.arange(num_bytes)
    rest = values[:, :, None] >> shifts  # [E, W, bytes]
    present = rest > 0
    present[:, :, 0] = True
    encoded = (rest & 127).astype(np.uint8)
    encoded[:, :, :-1] |= present[:, :, 1:].astype(np.uint8) << 7  # more bytes follow
    flat = encoded[present].tobytes()
    ends = np.cumsum(present.sum(axis=(1, 2))).tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends)]


def _rows(values: np.ndarray) -> list[bytes]:
    """Each row of a byte matrix."""
    flat, width = values.tobytes(), values.shape[1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]
