"""Whole runs on one process: what they leave, how they evaluate, stop, go on, and start from a TF1 checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.e2e import runs

# Settings: the default kernels, and XLA's, which GPUs use.
KERNELS = {"native": {}, "xla": {"native_kernels": False, "use_xla": True}}


@pytest.fixture(scope="module", params=["native", pytest.param("xla", marks=pytest.mark.slow)])
def kernels(request: pytest.FixtureRequest) -> dict[str, object]:
    return KERNELS[request.param]


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, str], kernels: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of twelve updates."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**data, **runs.settings(output_dir=str(output_dir), **kernels))
    return output_dir


def test_a_run_leaves_what_the_readme_promises(data, undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    assert {"run.json", "metrics.jsonl", "results.json", "bert_dllog.json", "checkpoint"} <= names
    assert {"model.ckpt-5.index", "model.ckpt-10.index", "model.ckpt-12.index"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any("temp" in name or name.endswith(".tmp") for name in names)
    results = json.loads((undisturbed / "results.json").read_text())
    assert (results["updates"], results["examples"], results["end"]) == (12, 72, "completed")
    assert results["examples_per_second"] > 0 and results["input_wait_share"] is not None
    assert [point["update"] for point in runs.metrics(undisturbed, "train")] == list(range(1, 13))
    lines = (undisturbed / "bert_dllog.json").read_text().splitlines()
    assert len(lines) == 12 and all(json.loads(line[len("DLLL ") :])["type"] == "LOG" for line in lines)
    described = json.loads((undisturbed / "run.json").read_text())
    assert described["settings"]["data"]["train_batch_size"] == 3
    assert described["versions"]["tensorflow"] == tf.__version__


@pytest.mark.parametrize("kernels", ["native", pytest.param("xla", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_stopped_after_update_7_and_started_again_ends_bit_for_bit_the_same(
    data, undisturbed: Path, kernels: dict[str, object], tmp_path: Path, signal: str
) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path), **kernels))
    died = runs.start(arguments, before=runs.signal_after(7, signal))
    if signal == "SIGKILL":
        assert died.returncode == -9
        assert not (tmp_path / "results.json").exists()
    else:
        # The signal is seen by the update that follows; its end is the run's.
        assert died.returncode == 0, died.stderr
        assert json.loads((tmp_path / "results.json").read_text())["end"] == "interrupted"
        assert (tmp_path / "model.ckpt-8.index").exists()
    again = runs.start(arguments)
    assert again.returncode == 0, again.stderr
    assert f"continuing {tmp_path}/model.ckpt-{5 if signal == 'SIGKILL' else 8}" in again.stdout
    one, other = (runs.tensors(path / "model.ckpt-12") for path in (undisturbed, tmp_path))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_finished_run_is_not_trained_again(data, undisturbed: Path, capsys: pytest.CaptureFixture) -> None:
    before = (undisturbed / "model.ckpt-12.index").stat().st_mtime_ns
    runs.train(**data, **runs.settings(output_dir=str(undisturbed)))
    assert "finished at update 12" in capsys.readouterr().out
    assert (undisturbed / "model.ckpt-12.index").stat().st_mtime_ns == before
    assert len(runs.metrics(undisturbed, "train")) == 12


def test_every_evaluation_counts_each_example_once(data, tmp_path: Path) -> None:
    values = runs.settings(
        output_dir=str(tmp_path), do_eval=True, samples_start_eval=30, samples_between_eval=24, stop_threshold=0.0
    )
    results = runs.train(**data, **values)
    evaluations = runs.metrics(tmp_path, "eval")
    # Before the first update; at 30, 54 examples, which is after updates 5 and 9; at the end.
    assert [point["update"] for point in evaluations] == [0, 5, 9, 12]
    assert {point["eval_examples"] for point in evaluations} == {1003}
    assert results["eval_examples"] == 1003
    assert results["initial_masked_lm_accuracy"] == evaluations[0]["masked_lm_accuracy"]
    alone = runs.train(
        **data, do_eval=True, eval_batch_size=50, output_dir=str(tmp_path / "alone"), pack_sequences=False,
        eval_checkpoint_path=str(tmp_path / "model.ckpt-12"),
    )  # fmt: skip
    assert alone["eval_examples"] == 1003
    assert alone["masked_lm_accuracy"] == pytest.approx(results["masked_lm_accuracy"])
    assert alone["masked_lm_loss"] == pytest.approx(results["masked_lm_loss"], rel=1e-5)
    capped = runs.train(
        **data, do_eval=True, eval_batch_size=7, max_eval_steps=3, output_dir=str(tmp_path / "capped"),
        eval_checkpoint_path=str(tmp_path / "model.ckpt-12"),
    )  # fmt: skip
    assert capped["eval_examples"] == 21


def test_evaluating_alone_keeps_what_training_wrote(data, tmp_path: Path) -> None:
    trained = runs.train(**data, **runs.settings(output_dir=str(tmp_path), num_train_steps=5))
    evaluated = runs.train(**data, do_eval=True, output_dir=str(tmp_path), eval_batch_size=64)
    assert evaluated["examples_per_second"] == trained["examples_per_second"]
    assert trained["eval_examples"] is None and evaluated["eval_examples"] == 1003


def test_reaching_the_threshold_ends_training(data, tmp_path: Path) -> None:
    # Chance is right once in 97; a threshold below that is reached at the first evaluation that may end a run.
    values = runs.settings(
        output_dir=str(tmp_path), do_eval=True, samples_start_eval=18, samples_between_eval=6, stop_threshold=0.002
    )
    results = runs.train(**data, **values)
    assert (results["end"], results["target_reached"], results["updates"]) == ("target_reached", True, 3)
    assert [point["update"] for point in runs.metrics(tmp_path, "eval")] == [0, 3]
    assert (tmp_path / "model.ckpt-3.index").exists()
    again = runs.train(**data, **values)
    assert again == results


def test_training_learns(data, tmp_path: Path) -> None:
    values = {"num_train_steps": 60, "train_batch_size": 12, "learning_rate": 2e-2, "optimizer_type": "adam"}
    runs.train(**data, **{**runs.settings(output_dir=str(tmp_path)), **values})
    losses = [point["loss"] for point in runs.metrics(tmp_path, "train")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_a_profile_changes_nothing_but_is_there(data, undisturbed: Path, kernels, tmp_path: Path, capsys) -> None:
    runs.train(**data, **runs.settings(output_dir=str(tmp_path), **kernels, profile_updates=2))
    assert "profile of 2 updates written to" in capsys.readouterr().out
    (profile,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert profile.stat().st_size > 1000
    one, other = (runs.tensors(path / "model.ckpt-12") for path in (undisturbed, tmp_path))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_start_too_short_for_a_profile_says_so(data, tmp_path: Path, capsys) -> None:
    runs.train(**data, **runs.settings(output_dir=str(tmp_path), num_train_steps=3, profile_updates=2))
    assert "note: --profile_updates: no profile: this start had only 3 updates" in capsys.readouterr().out


def test_device_warm_up_leaves_no_trace(data, undisturbed: Path, kernels: dict[str, object], tmp_path: Path) -> None:
    runs.train(**data, **runs.settings(output_dir=str(tmp_path), **kernels, enable_device_warmup=True))
    one, other = (runs.tensors(path / "model.ckpt-12") for path in (undisturbed, tmp_path))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
