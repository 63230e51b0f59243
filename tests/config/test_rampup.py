"""A ramp-up, held against the rule of Megatron-LM's --rampup-batch-size, followed one update after the other."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.rampup import RampUp, UpdateSizes
from tests.e2e.runs import make_config

rampups = st.builds(RampUp, st.integers(1, 40), st.integers(1, 40), st.integers(1, 400))


def followed(full: int, start: int, increment: int, examples: int, num_updates: int) -> list[int]:
    """The sizes of the first updates, as a program finds them that counts the examples it has consumed."""
    sizes, consumed = [], 0
    for _ in range(num_updates):
        if consumed > examples or full == start:
            size = full
        else:
            per_increment = Fraction(examples) / ((full - start) // increment)
            size = min(full, start + int(consumed / per_increment) * increment)
        sizes.append(size)
        consumed += size
    return sizes


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 500))
def test_sizes_and_positions_are_those_of_counting(start: int, steps: int, increment: int, examples: int) -> None:
    full = start + steps * increment
    expected = followed(full, start, increment, examples, 80)
    sizes = UpdateSizes(full, RampUp(start, increment, examples))
    assert [sizes.of(update) for update in range(80)] == expected
    assert [sizes.total(update) for update in range(81)] == [sum(expected[:update]) for update in range(81)]
    assert sizes.positions(7) == (sum(expected[:7]), sum(expected[:8]))
    assert sizes.of(sizes.first_full) == full
    reached = sizes.first_after(examples)
    assert sum(expected[:reached]) >= examples > sum(expected[: reached - 1]) or reached > 80
    assert not sizes.first_full or sizes.of(sizes.first_full - 1) < full


@settings(deadline=None)
@given(st.integers(1, 60), st.none() | rampups, st.integers(0, 50), st.integers(0, 50))
def test_parts_of_one_size_are_all_updates_once(full: int, rampup: RampUp, first: int, more: int) -> None:
    """Also of a ramp that was not checked, as of an evaluation alone."""
    sizes = UpdateSizes(full, rampup)
    parts = list(sizes.between(first, first + more))
    assert [update for begin, stop, _ in parts for update in range(begin, stop)] == [*range(first, first + more)]
    assert all(sizes.of(update) == size for begin, stop, size in parts for update in range(begin, stop))


def test_a_long_ramp_is_arithmetic() -> None:
    sizes = UpdateSizes(65_536, RampUp(256, 256, 2_000_000_000))
    assert sizes.total(10**9) > 10**13
    assert sizes.of(sizes.first_full - 1) == 65_536 - 256


@pytest.mark.parametrize(
    "text", ["", "32", "32,16", "0,16,300", "32,0,300", "32,16,0", "-8,8,64", "8,8,6.4", "1,2,3,4"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--rampup_batch_size must be START,INCREMENT,EXAMPLES"):
        make_config(rampup_batch_size=text).data.check()


@pytest.mark.parametrize(
    ("rampup", "num_ranks", "changes", "told"),
    [
        ("24,8,1000", 1, {}, None),
        ("28,8,1000", 1, {}, "cannot grow from 28 in steps of 8 to 48"),
        ("56,8,1000", 1, {}, "START of at most 48"),
        ("24,6,1000", 4, {}, "must be multiples of 4"),
        ("12,12,1000", 2, {"rank_invariant": True}, None),
        ("12,6,1000", 2, {"rank_invariant": True}, "must be multiples of 12: 6 examples of a micro-batch"),
    ],
)
def test_every_update_can_be_divided_among_the_ranks(rampup, num_ranks, changes, told) -> None:
    given = make_config(
        rampup_batch_size=rampup,
        train_batch_size=6,
        num_accumulation_steps=8 // num_ranks,
        lr_scaling="none",
        **changes,
    )
    if told is None:
        given.check_division(num_ranks)
        return
    with pytest.raises(ValueError, match=told):
        given.check_division(num_ranks)
