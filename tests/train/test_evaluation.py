"""When evaluations are due; the evaluation itself is tested on whole runs."""

from __future__ import annotations

import pytest

from bert_pretrain.config.rampup import UpdateSizes
from bert_pretrain.train.evaluation import is_due


@pytest.mark.parametrize(
    ("start", "between", "due"),
    [
        (0, 10, [3, 5, 8, 10]),  # updates of 4 examples: 12, 20, 32, 40 are the first at or past 10, 20, 30, 40
        (20, 10, [5, 8, 10]),
        (1, 100, [1]),
        (41, 10, []),
        (0, 3, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # more often than there are updates: after each
    ],
)
def test_evaluations_fall_on_the_first_update_past_each_multiple(start: int, between: int, due: list[int]) -> None:
    assert [step for step in range(11) if is_due(step, UpdateSizes(4), start, between)] == due
