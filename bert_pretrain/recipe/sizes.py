"""Sizes of models, and what they cost to train.

The sizes are those of Turc et al. 2019, "Well-Read Students Learn Better" (arXiv:1908.08962), and BERT-large of Devlin
et al. 2018 (arXiv:1810.04805). configs/model/ has the same shapes.
"""

from __future__ import annotations

from typing import NamedTuple

from bert_pretrain.config.model import ModelConfig

_HEAD_SIZE = 64  # columns of an attention head in every published BERT
_MASKED_SHARE = 0.15  # of the tokens, whose logits are computed


class Size(NamedTuple):
    """A published size."""

    name: str
    num_layers: int
    hidden_size: int

    def config(self, vocab_size: int) -> ModelConfig:
        """The model's shape; up to 512 positions, so that it can be continued on longer records."""
        return ModelConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.hidden_size // _HEAD_SIZE,
            intermediate_size=4 * self.hidden_size,
        )


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 2, 128),
        Size("mini", 4, 256),
        Size("small", 4, 512),
        Size("medium", 8, 512),
        Size("base", 12, 768),
        Size("large", 24, 1024),
    )
}


def layer_parameters(config: ModelConfig) -> int:
    """Weights of the layers, without embeddings and heads."""
    width, inner = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (4 * width**2 + 2 * width * inner)


def flops_per_example(config: ModelConfig, num_tokens: float) -> float:
    """Floating-point operations of forward and backward pass on an example of num_tokens tokens.

    The count of train/throughput.py: a multiply-add is two, backward is twice forward, and behind its attention the
    last layer computes the masked tokens alone.
    """
    width = config.hidden_size
    layers = 2.0 * layer_parameters(config) * num_tokens + 4.0 * width * num_tokens**2 * config.num_hidden_layers
    layers -= 2.0 * (width**2 + 2 * width * config.intermediate_size) * (1.0 - _MASKED_SHARE) * num_tokens
    masked_lm = _MASKED_SHARE * num_tokens * (2.0 * width**2 + 2.0 * width * config.vocab_size)
    return 3.0 * (layers + masked_lm)
