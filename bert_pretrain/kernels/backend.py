"""The three implementations of the kernels. A module of its own: choosing a backend must not import any of them."""

from __future__ import annotations

import enum


class Backend(enum.Enum):
    """Which implementation computes the operations between the matrix products. run.json stores the value."""

    PLAIN = "plain"  # TensorFlow's own operations
    XLA = "xla"  # compiled by XLA, once for each combination of shapes
    NATIVE = "native"  # C++ compiled for this CPU (bert_pretrain/kernels/native); float32 only
