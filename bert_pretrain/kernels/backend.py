"""The implementations of the kernels. A module of its own: choosing a backend must not import any of them."""

from __future__ import annotations

import enum


class Backend(enum.Enum):
    """Which implementation computes the operations between the matrix products. run.json stores the value."""

    PLAIN = "plain"  # TensorFlow's own operations
    XLA = "xla"  # compiled by XLA, once for each combination of shapes
    XLA_LAYERS = "xla_layers"  # the same, with the products: a layer is one program, the optimizer's update another
    NATIVE = "native"  # C++ compiled for this CPU (bert_pretrain/kernels/native); float32 only

    @property
    def is_compiled(self) -> bool:
        """True where XLA compiles for each shape of the tensors, so that these should be few."""
        return self in (Backend.XLA, Backend.XLA_LAYERS)
