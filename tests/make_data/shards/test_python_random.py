"""Both implementations of the draws against Python's own random.Random."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.data.masking import KEPT
from bert_pretrain.make_data.shards import python_random
from bert_pretrain.make_data.shards.python_random import CompiledDraws, InterpretedDraws, PythonDraws, make_draws
from bert_pretrain.system import native_library

MASK_ID, ENTRIES = 4, np.arange(100, 741, dtype=np.int32)


@pytest.fixture(scope="module", params=[CompiledDraws, InterpretedDraws])
def draws_of(request: pytest.FixtureRequest) -> type[PythonDraws]:
    if request.param is CompiledDraws:
        try:
            python_random.compiled_library()
        except native_library.UnavailableError as reason:
            pytest.skip(str(reason))
    return request.param


def replacements_of(rng: random.Random, count: int) -> list[int]:
    """As create_masked_lm_predictions draws them."""
    found = []
    for _ in range(count):
        if rng.random() < 0.8:
            found.append(MASK_ID)
        elif rng.random() < 0.5:
            found.append(KEPT)
        else:
            found.append(int(ENTRIES[rng.randint(0, len(ENTRIES) - 1)]))
    return found


def shuffled(rng: random.Random, count: int) -> list[int]:
    items = list(range(count))
    rng.shuffle(items)
    return items


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("uniform"), st.just(0)),
        st.tuples(st.just("below"), st.integers(1, 2**32 - 1)),
        st.tuples(st.just("below"), st.integers(1, 300)),
        st.tuples(st.just("order"), st.integers(0, 700)),
        st.tuples(st.just("replacements"), st.integers(0, 80)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-(2**40), 2**40), steps=STEPS, num_used=st.integers(0, 700))
def test_draws_are_those_of_python(draws_of: type[PythonDraws], seed: int, steps: list, num_used: int) -> None:
    rng, draws = random.Random(seed), draws_of(seed, MASK_ID, ENTRIES)
    for step, number in steps:
        if step == "uniform":
            assert draws.uniform() == rng.random()
        elif step == "below":
            assert draws.below(number) == rng.randint(0, number - 1)
        elif step == "order":
            assert draws.order(number, min(number, num_used)).tolist() == shuffled(rng, number)[:num_used]
        else:
            assert draws.replacements(number).tolist() == replacements_of(rng, number)


def test_many_numbers_are_shuffled_as_by_python(draws_of: type[PythonDraws]) -> None:
    order = draws_of(1, MASK_ID, ENTRIES).order(100_000, 100_000)
    assert order.dtype == np.uint32 and order.tolist() == shuffled(random.Random(1), 100_000)


def test_without_a_compiler_draws_are_made_in_python_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(python_random, "compiled_library", python_random.compiled_library.__wrapped__)
    assert isinstance(make_draws(0, MASK_ID, ENTRIES), InterpretedDraws)
    assert python_random.describe_draw_speed() == (
        "note: there is no no-such-compiler, so --mode=exact draws its random numbers in Python and takes about twice "
        "the time"
    )
