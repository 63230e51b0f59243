"""How far two results of the same computation may be apart: NumPy alone.

The unit roundoff u of a dtype is half the distance from 1 to the next number. Every product and sum of a network rounds
by up to u of its magnitude, and errors that are independent add up like their squares, so results differ by a few u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

UNIT_ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# A gradient may be this many u apart, as a share of its norm. Sums are in float32 for all dtypes; for float32 itself
# their roundings add to those of the operands. Seen on a CPU, in 4 and 12 layers: 15, 5 and 2 u in float32, float16 and
# bfloat16.
_ROUNDINGS = {"float32": 128, "tf32": 32, "float16": 32, "bfloat16": 32}
# Biases of keys shift all scores of a query alike, which softmax ignores: their true gradient is zero.
_WITHOUT_GRADIENT = "attention/self/key/bias"


class Difference(NamedTuple):
    """The largest relative difference over variables."""

    value: float
    variable: str


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, Euclidean; not finite where found is not."""
    scale = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(found.astype(np.float64) - expected))
    return difference / scale if scale else (math.inf if difference else 0.0)


def largest_difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Difference:
    """The variable whose relative difference is the largest, or is not finite."""
    differences = [
        Difference(relative_difference(found[name], expected[name]), name)
        for name in expected
        if not name.endswith(_WITHOUT_GRADIENT)
    ]
    return max(differences, key=lambda one: one.value if math.isfinite(one.value) else math.inf)


def allowed_gradient(dtype: str) -> float:
    """The largest relative difference of a variable's gradient that rounding explains."""
    return _ROUNDINGS[dtype] * UNIT_ROUNDOFF[dtype]


def allowed_step(dtype: str) -> float:
    """The same for what the first update of LAMB adds to a variable.

    That is close to the gradient's sign: of elements with a relative error e, about e / pi change their sign, and each
    moves by twice its step, so the relative difference is about 2 sqrt(e / pi); twice that is allowed.
    """
    return 4.0 * math.sqrt(allowed_gradient(dtype) / math.pi)


def row(name: str, value: float, allowed: float, where: str = "") -> dict[str, Any]:
    """One comparison for the report."""
    return {"name": name, "difference": value, "allowed": allowed, "where": where, "ok": bool(value <= allowed)}
