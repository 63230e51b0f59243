"""Who computes what stands between the matrix products."""

from __future__ import annotations

import enum


class Backend(enum.Enum):
    """The values are what run.json says."""

    PLAIN = "plain"  # TensorFlow's own operations
    XLA = "xla"  # compiled by XLA, for each shape anew
    NATIVE = "native"  # C++ compiled for this CPU (bert_pretrain/kernels/native); float32 only
