import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.data import rank_balance


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_each_example_goes_to_one_rank_and_each_rank_has_as_many(num_ranks, per_rank, seed):
    sizes = np.random.default_rng(seed).integers(0, 30, num_ranks * per_rank)
    shares = [rank_balance.records_for_rank(sizes, rank, num_ranks) for rank in range(num_ranks)]
    assert {len(share) for share in shares} == {per_rank}
    assert sorted(np.concatenate(shares)) == list(range(len(sizes)))
    for share in shares:
        assert list(share) == sorted(share)


def test_one_rank_takes_all_in_their_order():
    np.testing.assert_array_equal(rank_balance.records_for_rank(np.array([3, 1, 2]), 0, 1), [0, 1, 2])


def test_the_largest_go_apart_and_the_rest_makes_up_for_them():
    sizes = np.array([512, 500, 100, 90, 20, 8])
    shares = [rank_balance.records_for_rank(sizes, rank, 2).tolist() for rank in (0, 1)]
    assert shares == [[0, 3, 5], [1, 2, 4]]  # 610 and 620


def test_the_share_of_a_rank_is_what_it_always_was():
    # Frozen: a run that is continued must meet the same examples.
    sizes = np.array([2400, 2210, 2800, 2333, 2799, 2500, 2212, 2800, 2640, 2350, 2201, 2777])
    shares = [rank_balance.records_for_rank(sizes, rank, 3).tolist() for rank in range(3)]
    assert shares == [[1, 2, 8, 9], [0, 5, 6, 7], [3, 4, 10, 11]]


@pytest.mark.parametrize(("num_ranks", "per_rank", "bound"), [(2, 12, 1.01), (8, 24, 1.005), (64, 24, 1.02)])
def test_no_rank_has_much_more_than_the_others(num_ranks, per_rank, bound):
    random = np.random.default_rng(2)
    for _ in range(10):
        # A quarter is full and the others are spread evenly, as in Wikipedia's records of 512.
        lengths = np.minimum(512, random.integers(20, 680, num_ranks * per_rank))
        totals = [lengths[rank_balance.records_for_rank(lengths, rank, num_ranks)].sum() for rank in range(num_ranks)]
        assert max(totals) / np.mean(totals) < bound
