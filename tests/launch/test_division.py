"""How an update is divided among fewer ranks than the job began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_pretrain.launch import division

UPDATE = ["--num_accumulation_steps=2", "--train_batch_size=6", "--lr_scaling=none"]


@pytest.mark.parametrize(
    ("before", "most", "expected"),
    [
        (4, 4, (4, 2, 6)),
        (4, 2, (2, 4, 6)),
        (4, 3, (3, 4, 4)),  # 16 examples a rank: micro-batches of at most 6
        (2, 1, (1, 4, 6)),
    ],
)
def test_an_update_keeps_its_examples(before: int, most: int, expected: tuple[int, int, int]) -> None:
    found = division.divide_update(UPDATE, before, most)
    assert found[:3] == expected
    added = [f"--num_accumulation_steps={expected[1]}", f"--train_batch_size={expected[2]}"]
    assert found.flags == ([] if before == most else added)


def test_ranks_that_cannot_have_equal_parts_are_left_out() -> None:
    found = division.divide_update(["--train_batch_size=5", "--lr_scaling=none"], 3, 2)
    assert found[:3] == (1, 3, 5)
    assert str(found) == "15 examples an update as before: 1 ranks x 3 micro-batches x 5"


def test_fixed_micro_batches_stay() -> None:
    found = division.divide_update([*UPDATE, "--rank_invariant"], 4, 3)  # 8 micro-batches, which 2 ranks can share
    assert found[:3] == (2, 4, 6)
    assert found.flags[2:] == ["--invariant_micro_batches=8"]


def test_the_learning_rate_stays() -> None:
    found = division.divide_update(["--learning_rate=0.3"], 3, 1)
    assert found.flags[2:] == ["--lr_scaling=none", f"--learning_rate={0.3 * 3!r}"]


def test_flags_are_read_from_flagfiles_and_the_last_one_counts(tmp_path: Path) -> None:
    (tmp_path / "run.flags").write_text("--train_batch_size=4\n--num_accumulation_steps=3\n")
    flags = [f"--flagfile={tmp_path / 'run.flags'}", "--horovod", "--alsologtostderr", "--train_batch_size=2"]
    assert division.divide_update(flags, 2, 2)[:3] == (2, 3, 2)
    with pytest.raises(ValueError, match="train_batch_size"):
        division.divide_update(["--train_batch_size=many"], 2, 1)
