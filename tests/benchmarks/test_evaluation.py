"""What the comparison of evaluations reports, and when it reports nothing."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import evaluation

METRICS = {"masked_lm_loss": 7.5, "masked_lm_accuracy": 0.25, "next_sentence_loss": 0.7, "next_sentence_accuracy": 0.5}


def _turn(seconds: float = 2.0, examples: int = 8, **metrics: float) -> dict[str, Any]:
    return {
        **{"seconds": seconds, "examples": examples, "metrics": {**METRICS, **metrics}},
        **{"matmul_flops": 1e9, "peak_memory_bytes": 2**30},
    }


def test_workers_that_agree_are_reported_with_their_speed() -> None:
    answers = {
        "ours": [_turn(2.0), _turn(4.0)],
        "training_forward": [_turn(masked_lm_loss=8.0)] * 2,
        "peer": [_turn(4.0, masked_lm_loss=7.50001)] * 2,
    }
    evaluation._check(answers, 8)
    ours, _, peer = evaluation._table(answers, flops=1e9).splitlines()[2:]
    assert ours.startswith("| ours | 3.00 | 2.00 - 4.00 | 1.00 times | 0.375 | 7.500000 | 0.250000 |")
    assert peer.startswith("| peer | 2.00 | 2.00 - 2.00 | 1.50 times | 0.250 |")


@pytest.mark.parametrize("other", [_turn(masked_lm_loss=7.501), _turn(next_sentence_accuracy=0.51), _turn(examples=7)])
def test_workers_that_disagree_are_not(other: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="the workers disagree on"):
        evaluation._check({"ours": [_turn()], "peer": [other]}, 8)
