"""A network that trains in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.schema import Examples, encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard

MODEL = ModelConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=64,
)


def random_examples(
    random: np.random.Generator, count: int, model: ModelConfig = MODEL, seq_length: int = 64, max_predictions: int = 8
) -> Examples:
    """Padded examples of random lengths, as they would be parsed from records.

    The masked tokens are eight of the vocabulary, so that there is something to learn.
    """
    lengths = random.integers(6, seq_length + 1, count)
    columns = np.arange(seq_length)
    mask = (columns < lengths[:, None]).astype(np.int32)  # [E, S]
    masked = np.minimum(max_predictions, lengths // 4)
    slots = (np.arange(max_predictions) < masked[:, None]).astype(np.int32)  # [E, P]
    positions = np.stack([np.sort(random.choice(np.arange(1, n), max_predictions)) for n in lengths])
    return Examples(
        input_ids=random.integers(1, model.vocab_size, mask.shape, np.int32) * mask,
        input_mask=mask,
        segment_ids=mask * (columns >= lengths[:, None] // 2).astype(np.int32),
        masked_lm_positions=positions.astype(np.int32) * slots,
        masked_lm_ids=random.integers(1, 9, slots.shape, np.int32) * slots,
        masked_lm_weights=slots.astype(np.float32),
        next_sentence_labels=random.integers(0, 2, count, np.int32),
    )


def write_shards(directory: Path, seed: int, counts: list[int], model: ModelConfig = MODEL, **lengths: int) -> str:
    """Shards of random examples, counts[i] in the i-th; returns the directory."""
    random = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        write_shard(
            str(directory / f"part-{number:05d}.tfrecord"),
            encode_examples(random_examples(random, count, model, **lengths)),
        )
    return str(directory)
