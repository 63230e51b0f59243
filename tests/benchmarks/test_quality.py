"""Accuracy against seconds: plans, curves and tables, and a whole comparison of a tiny model."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import quality
from benchmarks.quality import OURS, PEER
from bert_pretrain.data.vocab import SPECIAL_TOKENS
from tests.train import small

WORDS = [f"w{number}" for number in range(160)]


def test_a_plan_fills_the_seconds_at_the_speed_that_was_measured() -> None:
    slow_start = [{"update": 10, "seconds": 7.0}, {"update": 30, "seconds": 17.0}]  # 2 updates/s, 2 s of compiling
    assert quality.updates_that_fit(slow_start, 60.0) == 116
    assert quality.updates_that_fit([{"update": 10, "seconds": 4.0}, {"update": 30, "seconds": 14.0}], 60.0) == 120
    assert quality.updates_that_fit(slow_start, 1.0) == 1


def test_evaluations_do_not_count_as_training() -> None:
    def record(update: int, time: float, seconds: float) -> dict[str, Any]:
        metrics = {"masked_lm_accuracy": 0.1, "masked_lm_accuracy_rare": None, "masked_lm_loss": 5.0}
        return {"update": update, "examples": 32 * update, "time": time, "seconds": seconds, **metrics}

    points, began = quality.training_seconds([record(0, 100.0, 9.0), record(5, 112.0, 2.0), record(9, 120.0, 3.0)])
    assert began == 100.0
    assert [(point["update"], point["examples"], point["seconds"]) for point in points] == [
        (5, 160, 10.0),
        (9, 288, 15.0),
    ]


def _result(side: str, accuracies: list[float], rate: float, seed: int = 0) -> dict[str, Any]:
    points = [
        {"update": 10 * number, "examples": 320 * number, "seconds": 20.0 * number}
        | {"accuracy": accuracy, "loss": 5.0, "rare_accuracy": accuracy / 2}
        for number, accuracy in enumerate(accuracies, start=1)
    ]
    return {
        **{"side": side, "minutes": 1.0, "seed": seed, "learning_rate": rate if side == PEER else None},
        **{"shown_learning_rate": rate, "optimizer": "lamb", "updates": points[-1]["update"], "points": points},
        **{"tokens": 1000, "startup_seconds": 5.0},
    }


def test_the_peers_best_rate_is_shown_and_the_times_at_which_one_reaches_the_other() -> None:
    entries = quality.summarize(
        [
            *(_result(OURS, [0.2, 0.3, 0.4], rate=1e-2, seed=seed) for seed in (0, 1)),
            *(_result(PEER, [0.1, 0.1, 0.15], rate=1e-4, seed=seed) for seed in (0, 1)),
            _result(PEER, [0.1, 0.2, 0.24], rate=5e-4, seed=0),
            _result(PEER, [0.1, 0.2, 0.28], rate=5e-4, seed=1),
        ]
    )
    assert [(entry["side"], entry["learning_rate"]) for entry in entries] == [(OURS, 1e-2), (PEER, 5e-4), (PEER, 1e-4)]
    rows = [line.split(" | ") for line in quality.tables([entries]).splitlines() if line.startswith("| 1 |")]
    ours, best, ours_reaches, best_reaches = rows
    assert ours[1:7] == [OURS, "lamb, 0.01", "30", "960", "1,000", "60.0"]
    assert ours[8] == "0.4000 (0.4000 - 0.4000)"
    assert best[8] == "0.2600 (0.2400 - 0.2800)"
    assert ours_reaches[2:] == ["0.2600", "40.0 |"]
    assert best_reaches[2:] == ["0.4000", "not reached |"]
    assert "took" not in quality.tables([entries])
    entries[0]["seconds"] = 50.0
    assert f"{OURS} took 50.0 s of 60" in quality.tables([entries])
    assert "0.0005: 0.2600, 0.0001: 0.1500" in quality.tables([entries])


def test_evaluators_that_disagree_end_the_comparison() -> None:
    run = quality.Run(OURS, 1.0, 0)
    quality._check_evaluators(
        run,
        {"accuracy": 0.5, "rare_accuracy": 0.2, "loss": 3.0},
        {"accuracy": 0.5001, "rare_accuracy": 0.2, "loss": 3.0001},
    )
    with pytest.raises(RuntimeError, match="disagree on rare_accuracy, loss"):
        quality._check_evaluators(
            run,
            {"accuracy": 0.5, "rare_accuracy": 0.2, "loss": 3.0},
            {"accuracy": 0.5, "rare_accuracy": 0.21, "loss": 3.1},
        )


@pytest.mark.interop
@pytest.mark.slow
def test_a_tiny_comparison_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "transformers", "accelerate", "matplotlib"):
        pytest.importorskip(package, reason="the interop and plot extras: pip install -e .[interop,plot]")
    data, output = _make_data(tmp_path / "data"), tmp_path / "output"
    flagfile = tmp_path / "tiny.flags"
    flagfile.write_text(
        "# a comment\n--train_batch_size=4\n--eval_batch_size=8\n--max_eval_steps=0\n--optimizer_type=adamw\n"
        "--learning_rate=5e-3\n--lr_scaling=none\n--num_train_steps=100\n--num_warmup_steps=10\n--stop_threshold=0\n"
    )
    command = [
        *(
            f"--data_dir={data}",
            f"--flagfile={flagfile}",
            f"--output_dir={output}",
            "--minutes=0.05,0.06",
            "--threads=1",
        ),
        *("--evaluations=2", "--speed_updates=6", "--hf_learning_rates=1e-3,5e-3", "--hf_batch_size=4"),
        *("--tune_minutes=0.05", f"--jobs={min(2, len(os.sched_getaffinity(0)))}"),
    ]
    quality.main(command)
    monkeypatch.setattr(quality.Study, "_do", lambda *_: pytest.fail("a finished run was done again"))
    quality.main(command)

    report = json.loads((output / "quality.json").read_text())
    (ours, *peers), (_, longer) = report["budgets"]
    assert ours["side"] == OURS and [entry["side"] for entry in peers] == [PEER, PEER]
    assert longer["learning_rate"] == peers[0]["learning_rate"]  # the best of the budget before
    for run in report["runs"]:
        assert 1 <= len(run["points"]) <= 2
        assert run["points"][-1]["update"] == run["updates"]
        assert 0.0 < run["points"][0]["seconds"] <= run["points"][-1]["seconds"]
        assert run["startup_seconds"] > 0.0
        assert run["tokens"] > 0
    trained = next(run for run in report["runs"] if run["side"] == OURS)
    for name in ("accuracy", "rare_accuracy", "loss"):
        assert trained["points"][-1][name] == pytest.approx(trained["on_the_peers_side"][name], abs=1e-4)
    page = (output / "quality.md").read_text()
    assert f"| {ours['updates']:,} | {4 * ours['updates']:,} |" in page
    assert f"{ours['accuracy']:.4f}" in page and f"{peers[0]['accuracy']:.4f}" in page
    assert "<svg" in (output / "quality.svg").read_text()


def _make_data(folder: Path) -> Path:
    """Shards of random records, and text of other words of the same vocabulary."""
    vocabulary = [*SPECIAL_TOKENS, *WORDS]
    model = dataclasses.replace(small.MODEL, vocab_size=len(vocabulary))
    small.write_shards(folder / "train", 0, [64], model)
    small.write_shards(folder / "eval", 1, [16, 16], model)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    (folder / "bert_config.json").write_text(json.dumps(dataclasses.asdict(model)))
    sentences = np.random.default_rng(2).choice(WORDS[10:], (60, 12))
    lines = [" ".join(sentence) for sentence in sentences]
    (folder / "train.txt").write_text("\n\n".join("\n".join(lines[i : i + 5]) for i in range(0, 60, 5)) + "\n")
    return folder
