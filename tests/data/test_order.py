""""""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.rampup import UpdateSizes
from bert_pretrain.data import order
from bert_pretrain.data.order import Order, hash_words, splitmix64

shard_sizes = st.lists(st.integers(0, 300), min_size=1, max_size=8).filter(any)


@settings(max_examples=60, deadline=None)
@given(shard_sizes, st.integers(-5, 2**40), st.integers(0, 3))
def test_each_epoch_is_a_permutation_of_all_records(records_per_shard, seed, epoch):
    total = sum(records_per_shard)
    records = Order(records_per_shard, seed).records(epoch * total, (epoch + 1) * total)
    assert sorted(records) == list(range(total))


@settings(max_examples=60, deadline=None)
@given(shard_sizes, st.integers(1, 160))
def test_the_updates_of_an_epoch_have_every_record_once(records_per_shard, num_examples):
    total = sum(records_per_shard)
    shuffled = Order(records_per_shard, 7)
    updates = [
        shuffled.records(*UpdateSizes(num_examples).positions(update)) for update in range(-(-total // num_examples))
    ]
    assert {len(records) for records in updates} == {num_examples}
    assert sorted(np.concatenate(updates)[:total]) == list(range(total))


@settings(max_examples=30, deadline=None)
@given(shard_sizes, st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_a_position_has_the_same_record_in_whatever_stretch_it_is_asked_for(records_per_shard, a, b, c):
    start, middle, stop = sorted((a, b, c))
    shuffled = Order(records_per_shard, 3)
    joined = np.concatenate([shuffled.records(start, middle), shuffled.records(middle, stop)])
    np.testing.assert_array_equal(joined, Order(records_per_shard, 3).records(start, stop))


def test_an_update_larger_than_the_data_set_goes_round():
    records = Order([3, 2], seed=1).records(0, 12)
    assert sorted(records[:5]) == sorted(records[5:10]) == [0, 1, 2, 3, 4]


def test_epochs_and_seeds_give_different_orders():
    shuffled = Order([500], seed=1)
    first = shuffled.records(0, 500)
    assert not np.array_equal(first, shuffled.records(500, 1000))
    assert not np.array_equal(first, Order([500], seed=2).records(0, 500))


def test_the_order_is_frozen():
    """A run resumed with a newer version must go on where it stopped: change these numbers only with a new format."""
    assert Order([100, 30, 1], seed=0).records(0, 8).tolist() == [89, 97, 105, 59, 68, 75, 25, 47]
    assert Order([100, 30, 1], seed=12345).records(131, 139).tolist() == [129, 1, 29, 105, 115, 6, 22, 99]


def test_the_shuffle_is_global_and_even():
    """One pool: each tenth of the epoch holds about a tenth of each tenth of the data."""
    total = 20_000
    records = Order([total // 4] * 4, seed=5).records(0, total)
    table = np.histogram2d(np.arange(total), records, bins=10)[0]
    assert table.min() > 140
    assert table.max() < 260


def test_reads_stay_inside_the_blocks_of_a_pool():
    total = (order.POOL + 100) * order.BLOCK
    shuffled = Order([total], seed=9)
    first = shuffled.pool(0)
    assert first == order.Pool(epoch=0, number=0)
    pool_size = order.POOL * order.BLOCK
    blocks = shuffled.pool_blocks(first)
    assert len(blocks.first) == order.POOL
    expected = np.concatenate([np.arange(a, a + n) for a, n in zip(*blocks)])
    assert set(shuffled.records(0, pool_size)) == set(expected)
    assert shuffled.pool(pool_size - 1) == first
    assert shuffled.pool(pool_size) == shuffled.pool_after(first) == order.Pool(0, 1)
    assert len(shuffled.pool_blocks(order.Pool(0, 1)).first) == 100
    assert shuffled.pool_after(order.Pool(0, 1)) == shuffled.pool(total) == order.Pool(1, 0)


def test_blocks_do_not_cross_shards():
    shuffled = Order([100, 64, 3], seed=0)
    blocks = shuffled.pool_blocks(order.Pool(0, 0))
    assert sorted(zip(blocks.first.tolist(), blocks.lengths.tolist())) == [(0, 64), (64, 36), (100, 64), (164, 3)]


@given(st.integers(0, 5000), st.integers(1, 9))
def test_evaluation_slices_cover_each_example_once(num_examples, num_ranks):
    slices = [order.evaluation_slice(num_examples, rank, num_ranks) for rank in range(num_ranks)]
    assert [number for start, stop in slices for number in range(start, stop)] == list(range(num_examples))
    sizes = [stop - start for start, stop in slices]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_evaluating_1003_examples_counts_1003(num_ranks):
    slices = [order.evaluation_slice(1003, rank, num_ranks) for rank in range(num_ranks)]
    assert sum(stop - start for start, stop in slices) == 1003


def test_splitmix64_gives_the_published_stream():
    # First outputs of the reference implementation for seed 1234567.
    state, gamma = np.uint64(1234567), np.uint64(0x9E3779B97F4A7C15)
    outputs = splitmix64(state + np.arange(3, dtype=np.uint64) * gamma)
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_words_are_hashed_one_after_the_other():
    rows = np.array([5, 2**63], np.uint64)
    hashed = hash_words(3, rows, 2**64 - 1)
    assert hashed.dtype == np.uint64 and len(set(hashed.tolist())) == 2
    assert hash_words(3, 5, 2**64 - 1).tolist() == hashed[:1].tolist() != hash_words(5, 3, 2**64 - 1).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_each_example_goes_to_one_rank_and_each_rank_has_as_many(num_ranks, per_rank, seed):
    sizes = np.random.default_rng(seed).integers(0, 30, num_ranks * per_rank)
    shares = [order.records_for_rank(sizes, rank, num_ranks) for rank in range(num_ranks)]
    assert {len(share) for share in shares} == {per_rank}
    assert sorted(np.concatenate(shares)) == list(range(len(sizes)))
    for share in shares:
        assert list(share) == sorted(share)


def test_one_rank_takes_all_in_their_order():
    np.testing.assert_array_equal(order.records_for_rank(np.array([3, 1, 2]), 0, 1), [0, 1, 2])


def test_the_largest_go_apart_and_the_rest_makes_up_for_them():
    sizes = np.array([512, 500, 100, 90, 20, 8])
    shares = [order.records_for_rank(sizes, rank, 2).tolist() for rank in (0, 1)]
    assert shares == [[0, 3, 5], [1, 2, 4]]  # 610 and 620


def test_the_share_of_a_rank_is_what_it_always_was():
    # Frozen: a run that is continued must meet the same examples.
    sizes = np.array([2400, 2210, 2800, 2333, 2799, 2500, 2212, 2800, 2640, 2350, 2201, 2777])
    shares = [order.records_for_rank(sizes, rank, 3).tolist() for rank in range(3)]
    assert shares == [[1, 2, 8, 9], [0, 5, 6, 7], [3, 4, 10, 11]]


@pytest.mark.parametrize(("num_ranks", "per_rank", "bound"), [(2, 12, 1.01), (8, 24, 1.005), (64, 24, 1.02)])
def test_no_rank_has_much_more_than_the_others(num_ranks, per_rank, bound):
    random = np.random.default_rng(2)
    for _ in range(10):
        # A quarter is full and the others are spread evenly, as in Wikipedia's records of 512.
        lengths = np.minimum(512, random.integers(20, 680, num_ranks * per_rank))
        totals = [lengths[order.records_for_rank(lengths, rank, num_ranks)].sum() for rank in range(num_ranks)]
        assert max(totals) / np.mean(totals) < bound
