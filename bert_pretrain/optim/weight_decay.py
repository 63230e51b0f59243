"""Which variables weight decay and LAMB's trust ratio leave alone."""

from __future__ import annotations


def is_exempt(name: str) -> bool:
    """True for layer norms and biases (facts 3.2); 'bias' also catches both heads' output_bias."""
    return any(part in name for part in ("LayerNorm", "layer_norm", "bias"))
