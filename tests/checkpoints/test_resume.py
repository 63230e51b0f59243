"""What a second start finds in output_dir."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_pretrain.checkpoints import resume
from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.run_files import metrics, run_json
from tests import small_disk
from tests.run_files.test_run_json import described


def content(ranks: int, micro_batches: int, examples: int) -> dict:
    return {**described(num_accumulation_steps=micro_batches, train_batch_size=examples), "ranks": ranks}


@pytest.mark.parametrize(
    ("present", "told"),
    [
        ((2, 4, 6), None),
        (
            (1, 8, 6),
            "has 1 x 8 x 6 now; the same examples follow, with other dropout masks; "
            "sums over them are equal up to rounding",
        ),
        (
            (2, 4, 12),
            "has 2 x 4 x 12 now; the position in the data is counted in updates and continues at example 960",
        ),
    ],
)
def test_another_batch_is_noticed(present: tuple[int, int, int], told: str) -> None:
    notices = run_json.notices_of_changes("/out", content(2, 4, 6), content(*present), 10)
    if told is None:
        assert notices == []
    else:
        assert notices == [f"an update had 2 ranks x 4 micro-batches x 6 examples at the previous start and {told}"]


@pytest.mark.parametrize(
    ("step", "results", "finished"),
    [
        (10, None, False),  # killed before its results
        (10, {"updates": 10, "target_reached": False, "masked_lm_accuracy": None}, True),
        (10, {"updates": 8, "target_reached": False, "masked_lm_accuracy": None}, False),  # of an earlier start
        (8, {"updates": 8, "target_reached": False, "masked_lm_accuracy": 0.9}, False),  # interrupted
        (10, {"updates": 10, "target_reached": False, "masked_lm_accuracy": 0.9, "end": "interrupted"}, False),
        (8, {"updates": 8, "target_reached": True, "masked_lm_accuracy": 0.73}, True),
        (8, {"updates": 8, "target_reached": True, "masked_lm_accuracy": 0.70}, False),  # the target was raised
    ],
)
def test_a_run_is_finished_when_its_results_say_so(step: int, results: dict, finished: bool) -> None:
    previous = PreviousRun("model.ckpt", step, step, results and {"end": "completed", **results})
    assert previous.is_finished(num_updates=10, stop_threshold=0.72) is finished


def test_the_first_and_the_newest_evaluation_are_remembered(tmp_path: Path) -> None:
    names = ("masked_lm_loss", "next_sentence_accuracy", "next_sentence_loss")
    others, measured = dict.fromkeys(names, 0.5), {"eval_examples": 9, "seconds": 1.0}
    lines = [
        metrics.metrics_line("eval", update, 0, {"masked_lm_accuracy": update / 10, **others, **measured})
        for update in (0, 4, 8)
    ]
    lines.append(metrics.metrics_line("eval", 5, 0, {"masked_lm_loss": 1.0}))  # of another program
    (tmp_path / metrics.METRICS_JSONL).write_bytes(b"".join(lines))
    initial, latest, update = resume._evaluations(str(tmp_path), step=5)
    assert (initial.metrics, initial.num_examples) == ({"masked_lm_accuracy": 0.0, **others}, 9)
    assert (latest.metrics, update) == ({"masked_lm_accuracy": 0.4, **others}, 4)
    previous = PreviousRun("model.ckpt", 4, 4, latest=latest, latest_update=update)
    assert previous.is_evaluated and not previous._replace(step=5).is_evaluated


def test_a_full_disk_is_no_reason_to_refuse_a_directory(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk") as disk:
        small_disk.fill(disk)
        resume.make_output_dir(str(disk))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file cannot be written: "):
        resume.make_output_dir(str(tmp_path / "file"))


def test_a_run_json_that_is_damaged_is_named(tmp_path: Path) -> None:
    assert run_json.read_run_json(str(tmp_path)) is None
    for text in ("{", "\xff", "[]", '{"settings": {}}', "[" * 100_000):
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=r"run\.json cannot be read: .*; move it away to go on without it"):
            run_json.read_run_json(str(tmp_path))
