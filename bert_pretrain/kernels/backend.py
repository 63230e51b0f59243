"""The implementations of the kernels. A module of its own: choosing a backend must not import any of them."""

from __future__ import annotations

import enum


class Backend(enum.Enum):
    """Which implementation computes the operations between the matrix products. run.json stores the value."""

    PLAIN = "plain"  # TensorFlow's own operations
    XLA = "xla"  # compiled by XLA, once for each combination of shapes
    XLA_LAYERS = "xla_layers"  # the same, with the products: a layer is one program, the optimizer's update another
    XLA_FUSED = "xla_fused"  # the same, with attention as CUDA kernels (bert_pretrain/kernels/fused); bfloat16 only
    NATIVE = "native"  # C++ compiled for this CPU (bert_pretrain/kernels/native); float32 only

    @property
    def is_compiled(self) -> bool:
        """True where XLA compiles for each shape of the tensors, so that these should be few."""
        return self is Backend.XLA or self.compiles_layers

    @property
    def compiles_layers(self) -> bool:
        """True where a layer is one program of XLA, and so is the optimizer's update."""
        return self in (Backend.XLA_LAYERS, Backend.XLA_FUSED)
