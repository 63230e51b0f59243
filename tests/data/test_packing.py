"""Micro-batches of --rank_invariant: the same ones, however many ranks divide them."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_pretrain.data import packing
from bert_pretrain.data.order import examples_for_rank
from bert_pretrain.data.packing import build_batch, build_micro_batches
from bert_pretrain.data.schema import Batch, Examples
from bert_pretrain.train import forward
from tests.train.small import random_examples

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

with_fixture = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
length_lists = st.lists(st.integers(1, 200), min_size=1, max_size=40)


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
        found = forward.narrow_rows(forward.micro_batch(tensors, tf.constant(k)))
        widths.add(alone.token_ids.shape[1])
        for name in Batch._fields[:9]:
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name), err_msg=name)
    assert len(widths) > 1


def contents(batch):
    """Each example of a batch as (label, tokens, segments, positions, masked columns with ids and weights), sorted."""
    width = batch.token_ids.shape[1]
    owner = {}  # flat position -> flat position of the [CLS] of its example
    found = []
    for cls in batch.cls_positions:
        row, column = divmod(int(cls), width)
        own = np.flatnonzero(batch.example_ids[row] == batch.example_ids[row, column])
        assert own[0] == column
        np.testing.assert_array_equal(own, column + np.arange(len(own)))
        owner.update({row * width + int(place): int(cls) for place in own})
    for cls, label in zip(batch.cls_positions.tolist(), batch.next_sentence_labels.tolist()):
        places = [place for place, first in owner.items() if first == cls]
        masked = [
            (int(place) - cls, int(token), float(weight))
            for place, token, weight in zip(batch.masked_positions, batch.masked_ids, batch.masked_weights)
            if owner[int(place)] == cls
        ]
        rows = (batch.token_ids, batch.segment_ids, batch.position_ids)
        found.append((label, *(array.reshape(-1)[places].tolist() for array in rows), masked))
    return sorted(found)


def test_examples_that_fill_a_row_share_it(make_examples):
    batch = build_batch(make_examples([64, 32, 96, 63], seq_length=128), rows_per_micro_batch=8, pack=True)
    assert batch.token_ids.tolist() == [[3] * 96 + [2] * 32, [1] * 64 + [4] * 63 + [0]]
    assert batch.example_ids.tolist() == [[1] * 96 + [2] * 32, [1] * 64 + [2] * 63 + [0]]
    assert batch.position_ids.tolist() == [[*range(96), *range(32)], [*range(64), *range(63), 0]]
    assert batch.cls_positions.tolist() == [0, 96, 128, 192]
    assert batch.next_sentence_labels.tolist() == [1, 0, 1, 0]


def test_without_packing_each_example_has_its_row_in_the_given_order(make_examples):
    batch = build_batch(make_examples([3, 2, 5], seq_length=8), rows_per_micro_batch=2, pack=False)
    assert batch.token_ids.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 0, 0, 0]]
    assert batch.example_ids.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [1] * 5 + [0] * 3]
    assert batch.segment_ids.tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0]]
    assert batch.cls_positions.tolist() == [0, 8, 16]
    assert batch.masked_positions.tolist() == [0, 1, 8, 9, 16, 17]
    assert batch.masked_ids.tolist() == [100, 101, 200, 201, 300, 301]
    assert batch.masked_weights.tolist() == [1.0] * 6
    assert batch.row_splits.tolist() == [0, 1, 3]
    assert batch.masked_splits.tolist() == [0, 2, 6]
    assert batch.example_splits.tolist() == [0, 1, 3]


def test_slots_of_weight_zero_are_left_out_and_other_weights_kept(make_examples):
    examples = make_examples([4, 4])
    examples.masked_lm_weights[:] = [[0.0, 0.5, 0.0], [0.25, 0.0, 1.0]]
    examples.masked_lm_positions[:] = [[9, 3, 9], [1, 9, 2]]
    batch = build_batch(examples, rows_per_micro_batch=2, pack=False)
    assert batch.masked_weights.tolist() == [0.5, 0.25, 1.0]
    assert batch.masked_positions.tolist() == [3, 17, 18]


def test_dtypes(make_examples):
    for pack in (False, True):
        batch = build_batch(make_examples([3, 5]), rows_per_micro_batch=2, pack=pack)
        for name, array in batch._asdict().items():
            assert array.dtype == (np.float32 if name == "masked_weights" else np.int32), name


@with_fixture
@given(lengths=length_lists, rows_per_micro_batch=st.integers(1, 9))
def test_packed_content_equals_unpacked_content_token_by_token(make_examples, lengths, rows_per_micro_batch):
    examples = make_examples(lengths, seq_length=200)
    packed = build_batch(examples, rows_per_micro_batch, pack=True)
    unpacked = build_batch(examples, rows_per_micro_batch, pack=False)
    assert contents(packed) == contents(unpacked)
    assert len(packed.token_ids) <= len(lengths)
    assert np.count_nonzero(packed.example_ids) == sum(lengths)


@with_fixture
@given(lengths=length_lists, rows_per_micro_batch=st.integers(1, 9), pack=st.booleans())
def test_micro_batches_own_their_rows_examples_and_masked_tokens(make_examples, lengths, rows_per_micro_batch, pack):
    batch = build_batch(make_examples(lengths, seq_length=200), rows_per_micro_batch, pack)
    num_rows, width = batch.token_ids.shape
    sizes = np.diff(batch.row_splits)
    assert len(sizes) == -(-num_rows // rows_per_micro_batch)
    assert sizes.max() <= rows_per_micro_batch
    assert sizes.max() - sizes.min() <= 1
    assert batch.row_splits[-1] == num_rows
    assert batch.masked_splits[-1] == len(batch.masked_positions)
    assert batch.example_splits[-1] == len(lengths)
    for first, last, splits, positions in [
        (batch.row_splits[k], batch.row_splits[k + 1], splits[k : k + 2], positions)
        for splits, positions in [
            (batch.masked_splits, batch.masked_positions),
            (batch.example_splits, batch.cls_positions),
        ]
        for k in range(len(sizes))
    ]:
        own = positions[splits[0] : splits[1]] // width
        assert ((own >= first) & (own < last)).all()


@with_fixture
@given(lengths=length_lists, rows_per_micro_batch=st.integers(1, 40), pack=st.booleans())
def test_few_shapes_have_the_same_content(make_examples, lengths, rows_per_micro_batch, pack):
    examples = make_examples(lengths, seq_length=200)
    batch = build_batch(examples, rows_per_micro_batch, pack, few_shapes=True)
    assert contents(batch) == contents(build_batch(examples, rows_per_micro_batch, pack=False))
    assert batch.token_ids.shape == (batch.row_splits[-1], 200)
    assert set(np.diff(batch.row_splits)) <= set(packing.row_counts(rows_per_micro_batch))
    assert batch.masked_splits[-1] == len(batch.masked_positions)
    assert batch.example_splits[-1] == len(lengths)
    owners = np.searchsorted(batch.row_splits, batch.cls_positions // 200, side="right") - 1
    np.testing.assert_array_equal(
        owners, np.repeat(np.arange(len(batch.row_splits) - 1), np.diff(batch.example_splits))
    )


@pytest.mark.parametrize("rows_per_micro_batch", [1, 6, 8, 9, 24, 512])
def test_a_micro_batch_has_one_of_at_most_eight_numbers_of_rows(rows_per_micro_batch: int) -> None:
    counts = packing.row_counts(rows_per_micro_batch)
    assert len(counts) == min(8, rows_per_micro_batch) and counts[-1] == rows_per_micro_batch
    assert counts == sorted(set(counts)) and counts[0] >= 1


@with_fixture
@given(lengths=length_lists)
def test_packing_is_deterministic(make_examples, lengths):
    first, second = (build_batch(make_examples(lengths, seq_length=200), 4, pack=True) for _ in range(2))
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "lengths, seq_length, width",
    [([3, 60], 512, 64), ([65], 512, 128), ([500], 512, 512), ([90], 100, 100), ([5], 16, 16), ([512, 3], 512, 512)],
)
def test_rows_end_at_the_longest_rounded_up(make_examples, lengths, seq_length, width):
    examples = make_examples(lengths, seq_length)
    assert build_batch(examples, 8, pack=False).token_ids.shape == (len(lengths), width)
    assert build_batch(examples, 8, pack=True).token_ids.shape[1] == width


def test_short_examples_share_narrow_rows():
    """600 tokens need two rows of 512; two of 320 hold them with 40 to spare instead of 424."""
    layout = packing.pack_rows([100] * 6, 512)
    assert (len(layout.rows), layout.width) == (2, 320)


def test_subset_sums_find_what_best_fit_misses():
    lengths = [44, 24, 24, 22, 21, 17, 8, 6, 6, 28]
    assert sum(lengths) == 200
    assert len(packing._best_fit(lengths, 100)) == 3
    layout = packing.pack_rows(lengths, 100)
    assert [sum(lengths[number] for number in row) for row in layout.rows] == [100, 100]


@pytest.mark.parametrize("num_examples, least", [(24, 0.95), (96, 0.98)])
def test_wikipedia_lengths_fill_the_rows(num_examples, least):
    counts = np.array(json.loads((GOLDEN / "wiki512_length_histogram.json").read_text())["counts"], float)
    chooser = np.random.RandomState(0)
    tokens = places = 0
    for _ in range(200):
        lengths = (chooser.choice(512, size=num_examples, p=counts / counts.sum()) + 1).tolist()
        layout = packing.pack_rows(lengths, 512)
        assert sorted(number for row in layout.rows for number in row) == list(range(num_examples))
        assert all(sum(lengths[number] for number in row) <= layout.width for row in layout.rows)
        tokens += sum(lengths)
        places += len(layout.rows) * layout.width
    assert tokens / places >= least
