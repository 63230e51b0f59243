"""Micro-batches of --rank_invariant: the same ones, however many ranks divide them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data.fixed_micro_batches import build_micro_batches, examples_for_rank
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import Batch, Examples
from bert_pretrain.train import forward
from tests.train.small import random_examples


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
def test_ranks_together_have_the_micro_batches_of_one(num_ranks: int) -> None:
    sizes = np.random.default_rng(0).integers(50, 500, 24)
    whole = examples_for_rank(sizes, 8, 0, 1)
    parts = [examples_for_rank(sizes, 8, rank, num_ranks) for rank in range(num_ranks)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert sorted(whole) == list(range(24))


@pytest.mark.parametrize("pack", [True, False])
def test_each_micro_batch_is_as_if_it_were_alone(pack: bool) -> None:
    """Of different widths in one batch: the short examples come first."""
    examples = random_examples(np.random.default_rng(0), 12, seq_length=200)
    short_first = np.argsort(examples.input_mask.sum(axis=1))
    examples = Examples(*(column[short_first] for column in examples))
    batch = build_micro_batches(examples, 4, pack)
    tensors = Batch(*map(tf.constant, batch))
    widths = set()
    for k in range(4):
        alone = build_batch(Examples(*(column[3 * k : 3 * k + 3] for column in examples)), 3, pack)
        found = forward.narrow(forward.micro_batch(tensors, tf.constant(k)))
        widths.add(alone.token_ids.shape[1])
        for name in Batch._fields[:9]:
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name), err_msg=name)
    assert len(widths) > 1
