"""output_dir over several starts: one job at a time, each update once, changed flags, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from bert_pretrain.train.hooks import TrainingHook
from tests import small_disk
from tests.e2e import runs
from tests.run_files.test_events import points
from tests.train.small import write_shards


def after_update(number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Does something while a run in this process goes on."""
    report = TrainingHook._report

    def reporting(self: TrainingHook, update: object) -> None:
        report(self, update)
        if self._step == number:
            act()

    monkeypatch.setattr(TrainingHook, "_report", reporting)


def logged_updates(path: Path) -> list[int]:
    return [json.loads(line[len("DLLL ") :])["step"][0] for line in path.read_text().splitlines()]


def event_updates(output_dir: Path, tag: str = "train/loss") -> list[int]:
    return [update for name, update, _ in points(output_dir) if name == tag]


# --- Each update once ---


def test_after_sigkill_every_file_holds_each_update_once(data, tmp_path: Path) -> None:
    dllog, out = tmp_path / "logs" / "dllog.json", tmp_path / "out"
    values = runs.settings(
        output_dir=str(out), dllog_path=str(dllog), do_eval=True, stop_threshold=0.0,
        samples_start_eval=18, samples_between_eval=24,
    )  # fmt: skip
    assert runs.start(runs.flags(**data, **values), before=runs.signal_after(8)).returncode == -9
    assert event_updates(out) == list(range(1, 9))  # no point waits in memory
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "update": 9, "lo')  # torn by the end of the process
    results = runs.train(**data, **values)
    assert [point["update"] for point in runs.metrics(out, "train")] == list(range(1, 13))
    evaluations = runs.metrics(out, "eval")
    assert [point["update"] for point in evaluations] == [0, 3, 7, 11, 12]
    assert results["initial_masked_lm_accuracy"] == evaluations[0]["masked_lm_accuracy"] is not None
    assert logged_updates(dllog) == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 11, 12, 12]
    assert event_updates(out) == list(range(1, 13))
    assert event_updates(out, "eval/masked_lm_accuracy") == [0, 3, 7, 11, 12]
    starts = json.loads((out / "run.json").read_text())["starts"]
    assert [start["update"] for start in starts] == [0, 7]
    assert not (out / ".training.lock").exists()


def test_killed_before_the_first_checkpoint_it_starts_anew_with_empty_files(data, tmp_path: Path) -> None:
    values = runs.settings(output_dir=str(tmp_path), num_train_steps=4, do_eval=True, stop_threshold=0.0)
    die = """
import os
from bert_pretrain.checkpoints.writer import CheckpointWriter
CheckpointWriter._write = lambda *_: os._exit(9)
"""
    assert runs.start(runs.flags(**data, **values), before=die).returncode == 9
    assert len(runs.metrics(tmp_path, "train")) == 4
    runs.train(**data, **values)
    assert [point["update"] for point in runs.metrics(tmp_path, "train")] == [1, 2, 3, 4]
    assert [point["update"] for point in runs.metrics(tmp_path, "eval")] == [0, 4]
    assert event_updates(tmp_path) == [1, 2, 3, 4]


# --- One job ---


def test_a_second_job_is_refused_and_an_evaluation_does_not_disturb(data, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    values = runs.settings(output_dir=str(out), num_train_steps=1_000_000, save_checkpoints_steps=20)
    command = [sys.executable, "-m", "bert_pretrain.run", *runs.flags(**data, **values)]
    with (tmp_path / "out.txt").open("w") as output:
        first = subprocess.Popen(command, stdout=output)
    try:
        end = time.monotonic() + 120
        while not (out / "model.ckpt-20.index").exists() and time.monotonic() < end:
            time.sleep(0.1)
        with pytest.raises(ValueError, match=f"is in use: process {first.pid} on "):
            runs.train(**data, **values)
        evaluated = {**data, "do_eval": True, "output_dir": str(out), "eval_batch_size": 64}
        config = runs.make_config(**evaluated)
        with runs.connection.connected(False) as world:
            assert runs.loop.run_job(config, world) == 0
        said = capsys.readouterr().out
        assert "not written: --output_dir:" in said and "| BERT Pretraining |" in said
        assert not (out / "results.json").exists()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait()
    assert {point["kind"] for point in map(json.loads, (out / "metrics.jsonl").open())} == {"train"}
    assert not (out / ".training.lock").exists()


# --- Evaluating later ---


@pytest.mark.parametrize("name", [".training.lock", "metrics.jsonl", "bert_dllog.json"])
def test_a_link_or_a_pipe_in_the_place_of_a_file_of_the_run_is_one_line(name: str, data, tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("old\n")
    for plant in (lambda: (out / name).symlink_to(precious), lambda: os.mkfifo(out / name)):
        plant()
        with pytest.raises(ValueError, match=rf"^--output_dir: {out}/{name} cannot be written: [\w ]+$"):
            runs.train(**data, **runs.settings(output_dir=str(out)))
        (out / name).unlink()
    assert precious.read_text() == "old\n"


def test_an_evaluation_alone_leaves_the_run_as_it_was(data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trained = runs.train(**data, **runs.settings(output_dir=str(out), optimizer_type="adam", num_train_steps=6))
    before = (out / "run.json").read_bytes()
    alone = {**data, "do_eval": True, "output_dir": str(out), "eval_batch_size": 64}
    evaluated = runs.train(**alone)  # the default optimizer is another one, which does not matter here
    assert evaluated["masked_lm_accuracy"] is not None and evaluated["updates"] == 6
    earlier = runs.train(**alone, eval_checkpoint_path=f"{out}/model.ckpt-5")
    assert earlier == evaluated, "results.json is that of the run"
    runs.train(**alone)
    assert (out / "run.json").read_bytes() == before
    assert [point["update"] for point in runs.metrics(out, "eval_alone")] == [5, 6]
    assert len(runs.metrics(out, "train")) == 6 and runs.metrics(out, "eval") == []
    assert evaluated["examples_per_second"] == trained["examples_per_second"]
    others = {**data, "input_files_dir": write_shards(tmp_path / "others", 9, [17])}
    with pytest.raises(ValueError, match="holds a run with train data"):
        runs.train(**others, **runs.settings(output_dir=str(out), optimizer_type="adam"))


def test_a_finished_run_is_evaluated_when_that_is_asked_for(data, tmp_path: Path, capsys) -> None:
    values = runs.settings(output_dir=str(tmp_path), num_train_steps=3, stop_threshold=0.0)
    trained = runs.train(**data, **values)
    assert trained["masked_lm_accuracy"] is None
    evaluated = runs.train(**data, **values, do_eval=True)
    assert evaluated["masked_lm_accuracy"] is not None and evaluated["eval_examples"] == 1003
    assert evaluated["updates_per_second"] == trained["updates_per_second"]
    said = capsys.readouterr().out
    assert "note: --do_eval was False at the previous start and is True now" in said
    assert runs.train(**data, **values, do_eval=True) == evaluated
    assert [point["update"] for point in runs.metrics(tmp_path, "eval")] == [3]
    fewer = runs.train(**data, **{**values, "eval_batch_size": 5}, do_eval=True, max_eval_steps=2)
    assert fewer["eval_examples"] == 10
    assert [point["eval_examples"] for point in runs.metrics(tmp_path, "eval")] == [10]


# --- Changed flags ---


def test_changed_flags_are_refused_or_told(data, tmp_path: Path, capsys) -> None:
    values = runs.settings(output_dir=str(tmp_path))
    runs.train(**data, **{**values, "num_train_steps": 3})
    for name, value in (("data_seed", 1), ("seed", 1), ("beta_1", 0.8), ("optimizer_type", "adam")):
        with pytest.raises(ValueError, match=f"--{name} .* this one has {value}: .*--{name}="):
            runs.train(**data, **{**values, name: value})
    capsys.readouterr()
    runs.train(**data, **{**values, "num_train_steps": 4, "clip_norm": 0.5})
    said = capsys.readouterr().out
    for told in (
        "--clip_norm was 1.0 at the previous start and is 0.5",
        "--num_train_steps was 3 at the previous start and is 4",
    ):
        assert said.count(f"note: {told} now") == 1
    _, second = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert second["update"] == 3 and second["changed"] == {"--num_train_steps": [3, 4], "--clip_norm": [1.0, 0.5]}


# --- A full disk ---


def test_a_disk_full_for_a_while_ends_nothing_and_loses_nothing(data, tmp_path, monkeypatch, capfd) -> None:
    with small_disk.mounted(tmp_path / "disk", kilobytes=64) as disk:
        out, filler = tmp_path / "out", disk / "filler"
        values = runs.settings(output_dir=str(out), dllog_path=str(disk / "dllog.json"))
        after_update(3, lambda: small_disk.fill(disk), monkeypatch)
        after_update(9, filler.unlink, monkeypatch)
        assert runs.train(**data, **values)["updates"] == 12
        assert logged_updates(disk / "dllog.json") == list(range(1, 13))
    err = capfd.readouterr().err
    assert err.count("dllog.json cannot be written: No space left on device") == 1
    assert err.count("dllog.json can be written again; nothing is missing") == 1


def test_a_console_that_takes_nothing_changes_no_exit_code(data, tmp_path: Path) -> None:
    output_dir = tmp_path / "für alle"
    arguments = runs.flags(**data, **runs.settings(output_dir=str(output_dir), num_train_steps=3))
    command = ["bash", "-c", '"$@" <&- >/dev/full 2>&-', "bash", sys.executable, "-m", "bert_pretrain.run", *arguments]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert subprocess.run(command, env=environ, check=False, timeout=120).returncode == 0
    assert json.loads((output_dir / "results.json").read_text())["end"] == "completed"
    assert runs.tensors(output_dir / "model.ckpt-3")


def test_an_output_dir_full_for_a_while_gets_everything_later(data, tmp_path, monkeypatch, capfd) -> None:
    with small_disk.mounted(tmp_path / "disk", kilobytes=8192) as disk:
        small_disk.fill(disk)  # full before run.json, freed before the first checkpoint
        values = runs.settings(output_dir=str(disk), num_train_steps=6, save_checkpoints_steps=6)
        after_update(5, (disk / "filler").unlink, monkeypatch)
        assert runs.train(**data, **values)["updates"] == 6
        assert [point["update"] for point in runs.metrics(disk, "train")] == list(range(1, 7))
        assert event_updates(disk) == list(range(1, 7))
        assert json.loads((disk / "run.json").read_text())["starts"][0]["update"] == 0
        names = {name.partition(".tfevents")[0] for name in os.listdir(disk)}
        assert {name for name in names if name.startswith((".", "events"))} == {"events.out"}
    err = capfd.readouterr().err
    for name in ("run.json", "metrics.jsonl", "bert_dllog.json"):
        assert err.count(f"{name} cannot be written: No space left on device") == 1
