"""What a second start finds in output_dir."""

from __future__ import annotations

import pytest

from bert_pretrain.train import run_file
from bert_pretrain.train.resume import PreviousRun


def content(ranks: int, micro_batches: int, examples: int) -> dict:
    settings = {"optim": {"num_accumulation_steps": micro_batches}, "data": {"train_batch_size": examples}}
    return {"ranks": ranks, "settings": settings}


@pytest.mark.parametrize(
    ("present", "told"),
    [
        ((2, 4, 6), None),
        ((1, 8, 6), "has 1 x 8 x 6 now; the same examples follow, with other dropout masks"),
        (
            (2, 4, 12),
            "has 2 x 4 x 12 now; the position in the data is counted in updates and continues at example 960",
        ),
    ],
)
def test_another_batch_is_noticed(present: tuple[int, int, int], told: str, tmp_path) -> None:
    run_file.save(str(tmp_path), content(2, 4, 6))
    notice = run_file.batch_notice(str(tmp_path), content(*present), position=10)
    if told is None:
        assert notice is None
    else:
        assert notice == f"an update had 2 ranks x 4 micro-batches x 6 examples at the previous start and {told}"


def test_nothing_is_noticed_in_a_new_directory(tmp_path) -> None:
    assert run_file.batch_notice(str(tmp_path), content(2, 4, 6), position=10) is None


@pytest.mark.parametrize(
    ("step", "results", "finished"),
    [
        (10, None, False),  # killed before its results
        (10, {"updates": 10, "target_reached": False, "masked_lm_accuracy": None}, True),
        (10, {"updates": 8, "target_reached": False, "masked_lm_accuracy": None}, False),  # of an earlier start
        (8, {"updates": 8, "target_reached": False, "masked_lm_accuracy": 0.9}, False),  # interrupted
        (8, {"updates": 8, "target_reached": True, "masked_lm_accuracy": 0.73}, True),
        (8, {"updates": 8, "target_reached": True, "masked_lm_accuracy": 0.70}, False),  # the target was raised
    ],
)
def test_a_run_is_finished_when_its_results_say_so(step: int, results: dict, finished: bool) -> None:
    previous = PreviousRun("model.ckpt", step, step, results, None)
    assert previous.is_finished(num_updates=10, stop_threshold=0.72) is finished
