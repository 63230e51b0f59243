"""What ranks tell each other as bytes: JSON, because a pickle runs code that it names.

JSON alone has no tuples and would return lists; facts of ranks are compared with ==.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import numpy as np

Kind = TypeVar("Kind", bound=type)

_LIST, _TUPLE, _DICT, _BYTES = "list", "tuple", "dict", "bytes"
_kinds: dict[str, type] = {}


def exchanged(kind: Kind) -> Kind:
    """Registers a NamedTuple, so that ranks may exchange it; also usable as a decorator."""
    assert _kinds.setdefault(kind.__name__, kind) is kind, f"there are two classes {kind.__name__}"
    return kind


def encode_message(value: Any) -> np.ndarray:
    """uint8 [X], not empty.

    Values may be None, bool, int, float, str, bytes, NumPy's numbers, which become Python's, and lists, tuples (also
    those that are `exchanged`) and dicts with str keys of them.
    """
    return np.frombuffer(json.dumps(_to_json(value), separators=(",", ":")).encode("ascii"), np.uint8)


def decode_messages(gathered: np.ndarray, sizes: np.ndarray) -> list[Any]:
    """The values of all ranks, whose messages of `sizes` bytes follow each other in `gathered`, uint8 [X]."""
    parts = np.split(gathered, np.cumsum(sizes)[:-1])
    return [_from_json(json.loads(part.tobytes())) for part in parts]


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), "JSON has no other keys"
        return {_DICT: {key: _to_json(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        name = type(value).__name__
        assert type(value) in (list, tuple) or _kinds.get(name) is type(value), f"{name} is not exchanged"
        items = [_to_json(item) for item in value]
        return items if name == _LIST else {name: items}
    assert isinstance(value, bytes), f"ranks do not exchange {type(value)}"
    return {_BYTES: value.hex()}


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((name, content),) = value.items()
    if name == _DICT:
        return {key: _from_json(item) for key, item in content.items()}
    if name == _BYTES:
        return bytes.fromhex(content)
    items = [_from_json(item) for item in content]
    return tuple(items) if name == _TUPLE else _kinds[name](*items)
