"""Cut records, held against records that are made from cut sequences, a token at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.data.schema import Examples, Limits, check_examples
from bert_pretrain.data.truncation import LEAST_LENGTH, truncate_examples

CLS, SEP, MASK, WIDTH, SLOTS = 1, 2, 3, 40, 6


def make(first: Sequence[int], second: Sequence[int], masked: Sequence[int]) -> list[np.ndarray]:
    """A record of two sequences, the second perhaps empty, in which the tokens `masked` are predicted."""
    ids = [CLS, *first, SEP, *second, *([SEP] if second else [])]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + bool(second))
    places = [place for place, token in enumerate(ids) if token in masked]
    shown = [MASK if place in places else token for place, token in enumerate(ids)]

    def padded(values: Sequence[float], size: int, dtype: type = np.int32) -> np.ndarray:
        return np.array([*values, *[0] * (size - len(values))], dtype)

    return [
        padded(shown, WIDTH), padded([1] * len(ids), WIDTH), padded(segments, WIDTH), padded(places, SLOTS),
        padded([ids[place] for place in places], SLOTS), padded([1.0] * len(places), SLOTS, np.float32),
        np.array(len(second) % 2, np.int32),
    ]  # fmt: skip


def cut(first: list[int], second: list[int], max_length: int) -> None:
    """google-research/bert's rule, cutting at the ends alone."""
    while len(first) + len(second) + 2 + bool(second) > max_length:
        (first if len(first) > len(second) else second).pop()


words = st.integers(1, 18)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(words, st.integers(0, 18), st.sets(st.integers(10, 45), max_size=SLOTS)), min_size=1, max_size=6
    ),
    st.integers(LEAST_LENGTH, WIDTH),
)
def test_a_cut_record_is_one_made_of_cut_sequences(records, max_length: int) -> None:
    whole, expected = [], []
    for num_first, num_second, masked in records:
        first = list(range(10, 10 + num_first))
        second = list(range(10 + num_first, 10 + num_first + num_second))
        whole.append(make(first, second, masked))
        label = whole[-1][-1]
        cut(first, second, max_length)
        expected.append([*make(first, second, masked)[:-1], label])
    examples = Examples(*(np.stack(column) for column in zip(*whole)))
    found = truncate_examples(examples, max_length)
    check_examples(found, Limits(100, 2), ["a record"] * len(records))
    for name, column in zip(Examples._fields, map(np.stack, zip(*expected))):
        values = getattr(found, name)
        assert values.shape == column.shape and values.dtype == column.dtype
        if name.startswith("masked_lm"):  # slots that are used, in their order
            for row, wanted in zip(range(len(records)), column):
                used, kept = found.masked_lm_weights[row] > 0, int((np.stack([e[5] for e in expected])[row] > 0).sum())
                np.testing.assert_array_equal(values[row][used], wanted[:kept], err_msg=name)
        else:
            np.testing.assert_array_equal(values, column, err_msg=name)
