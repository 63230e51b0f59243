"""The published sizes of BERT, and what a model costs: its weights, and the floating-point operations of its passes.

The sizes are those of Turc et al. 2019, "Well-Read Students Learn Better" (arXiv:1908.08962), and BERT-large of Devlin
et al. 2018 (arXiv:1810.04805). configs/model/ has the same shapes as files.
"""

from __future__ import annotations

from typing import NamedTuple

from bert_pretrain.config.model import ModelConfig

TRAINING_COST = 3.0  # forward and backward pass, in forward passes: backward is twice forward
_HEAD_SIZE = 64  # columns of an attention head in every published BERT
_MASKED_SHARE = 0.15  # of the tokens, in the published recipe


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


def count_forward_flops(
    config: ModelConfig, num_tokens: float, squared_lengths: float, num_masked: float, num_examples: float
) -> float:
    """Floating-point operations of forward passes over examples without padding.

    squared_lengths: the sum over the examples of length^2, for attention. num_masked: tokens whose masked-LM logits are
    computed. num_examples: examples whose next-sentence logits are computed.

    A multiply-add is two; dropout, norms and softmax are left out. After its attention, the last layer needs only the
    tokens that the heads read.
    """
    width, inner = config.hidden_size, config.intermediate_size
    attention = 6.0 * width**2 * num_tokens + 4.0 * width * squared_lengths
    after_attention = 2.0 * width**2 + 4.0 * width * inner  # of one token
    num_read = num_masked + num_examples
    encoder = config.num_hidden_layers * attention + after_attention * (
        (config.num_hidden_layers - 1) * num_tokens + num_read
    )
    masked_lm = num_masked * (2.0 * width**2 + 2.0 * width * config.vocab_size)
    next_sentence = num_examples * (2.0 * width**2 + 4.0 * width)
    return encoder + masked_lm + next_sentence


def flops_per_example(config: ModelConfig, num_tokens: float) -> float:
    """Floating-point operations of training on an example of num_tokens tokens, without the next-sentence head."""
    return TRAINING_COST * count_forward_flops(config, num_tokens, num_tokens**2, _MASKED_SHARE * num_tokens, 0)
