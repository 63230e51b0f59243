"""Reads ckpt-28252.variables.tsv, the frozen index of MLPerf's checkpoint."""

from __future__ import annotations

import json
import pathlib

SLOT_SUFFIXES = ("", "/LAMB", "/LAMB_1")  # the weight itself, first moment, second moment

_PATH = pathlib.Path(__file__).parent / "ckpt-28252.variables.tsv"
_LAYERS = "{0..23}"


def weights() -> dict[str, tuple[int, ...]]:
    """Name -> shape of the 398 trained variables."""
    return {name: shape for name, _, shape, has_slots in _lines() if has_slots}


def entries() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of all 1,197 tensors: weights, their slots, beta powers, global_step."""
    return {
        name + suffix: (dtype, shape)
        for name, dtype, shape, has_slots in _lines()
        for suffix in (SLOT_SUFFIXES if has_slots else SLOT_SUFFIXES[:1])
    }


def _lines() -> list[tuple[str, str, tuple[int, ...], bool]]:
    lines = []
    for line in _PATH.read_text().splitlines():
        if line.startswith("#"):
            continue
        pattern, dtype, shape, *slots = line.split("\t")
        layers = range(24) if _LAYERS in pattern else range(1)
        lines += [(pattern.replace(_LAYERS, str(i)), dtype, tuple(json.loads(shape)), bool(slots)) for i in layers]
    return lines
