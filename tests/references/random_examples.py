"""Random padded examples of different lengths, and their layout in rows, in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bert_pretrain.config.model import ModelConfig

# Several layers and heads, and sizes that all differ, so that no two dimensions can be confused unnoticed.
TINY = ModelConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=56,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=40,
)
LENGTHS = (24, 9, 15, 17)  # tokens of each example; the first has no padding
MAX_PREDICTIONS = 5
WIDTH = 24


class Examples(NamedTuple):
    """The features of TFRecords, one row per example."""

    input_ids: np.ndarray  # [E, S] int32
    input_mask: np.ndarray  # [E, S] int32
    segment_ids: np.ndarray  # [E, S] int32
    masked_lm_positions: np.ndarray  # [E, P] int32
    masked_lm_ids: np.ndarray  # [E, P] int32
    masked_lm_weights: np.ndarray  # [E, P] float32, 0 where fewer than P are masked
    next_sentence_labels: np.ndarray  # [E] int32


class RowBatch(NamedTuple):
    """The same examples as rows of tokens; a flat position is row * width + column."""

    token_ids: np.ndarray  # [R, S]
    segment_ids: np.ndarray  # [R, S]
    position_ids: np.ndarray  # [R, S]
    example_ids: np.ndarray  # [R, S]
    masked_positions: np.ndarray  # [M] flat, in the order of examples
    masked_ids: np.ndarray  # [M]
    masked_weights: np.ndarray  # [M]
    cls_positions: np.ndarray  # [E] flat
    next_sentence_labels: np.ndarray  # [E]


def examples(seed: int = 0) -> Examples:
    """Four examples with LENGTHS tokens, of which a quarter, at most MAX_PREDICTIONS, are masked."""
    random = np.random.default_rng(seed)
    count = len(LENGTHS)
    batch = Examples(
        *(np.zeros([count, WIDTH], np.int32) for _ in range(3)),
        *(np.zeros([count, MAX_PREDICTIONS], np.int32) for _ in range(2)),
        np.zeros([count, MAX_PREDICTIONS], np.float32),
        random.integers(0, 2, [count], np.int32),
    )
    for i, length in enumerate(LENGTHS):
        batch.input_ids[i, :length] = random.integers(1, TINY.vocab_size, length)
        batch.input_mask[i, :length] = 1
        batch.segment_ids[i, length // 2 : length] = 1
        masked = min(MAX_PREDICTIONS, length // 4)
        batch.masked_lm_positions[i, :masked] = np.sort(random.choice(np.arange(1, length), masked, replace=False))
        batch.masked_lm_ids[i, :masked] = random.integers(1, TINY.vocab_size, masked)
        batch.masked_lm_weights[i, :masked] = 1.0
    return batch


def in_rows(batch: Examples, row_members: tuple[tuple[int, ...], ...], width: int) -> RowBatch:
    """Places examples row_members[r][0], row_members[r][1], ... one after the other in row r, without padding."""
    ids = [np.zeros([len(row_members), width], np.int32) for _ in range(4)]
    starts = {}
    for row, members in enumerate(row_members):
        column = 0
        for number, example in enumerate(members, start=1):
            length = int(batch.input_mask[example].sum())
            place = np.s_[row, column : column + length]
            for target, values in zip(
                ids, (batch.input_ids[example, :length], batch.segment_ids[example, :length], np.arange(length), number)
            ):
                target[place] = values
            starts[example] = row * width + column
            column += length
    used = batch.masked_lm_weights > 0  # [E, P]
    first = np.array([starts[example] for example in range(len(batch.input_ids))], np.int32)
    return RowBatch(
        *ids,
        masked_positions=(batch.masked_lm_positions + first[:, None])[used],
        masked_ids=batch.masked_lm_ids[used],
        masked_weights=batch.masked_lm_weights[used],
        cls_positions=first,
        next_sentence_labels=batch.next_sentence_labels,
    )


def weights(shapes: dict[str, tuple[int, ...]], seed: int = 1) -> dict[str, np.ndarray]:
    """Random float32 weights, larger than initial values, so that every part of the network affects the logits."""
    random = np.random.default_rng(seed)
    spread = {name: random.normal(0.0, 0.25, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: value + 1.0 if name.endswith("gamma") else value for name, value in spread.items()}
