"""TensorBoard's event files: TensorFlow reads them, and a continued run keeps no point twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tensorflow as tf

from bert_pretrain.data.shards.tfrecord import frame_record
from bert_pretrain.run_files import events
from bert_pretrain.run_files.events import EventFile


def points(output_dir: Path) -> list[tuple[str, int, float]]:
    """Tag, update and value of every point, file by file, as TensorFlow reads them."""
    return [
        (value.tag, event.step, round(value.simple_value, 3))
        for path in sorted(output_dir.glob("events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


SETTINGS = {"run": {"do_train": True, "seed": 7}, "optim": {"learning_rate": 0.25, "kind": "lamb", "absent": None}}


def write(output_dir: Path, updates: range, settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> Path:
    events = EventFile(str(output_dir))
    events.describe(settings)
    events.start(updates.start)
    for update in updates:
        events.add("train", update, {"loss": update / 10, "absent": None})
    return Path(events.file.path)


def test_tensorflow_reads_what_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 4))
    version, start, *rest = tf.compat.v1.train.summary_iterator(str(path))
    assert version.file_version == "brain.Event:2" and version.wall_time > 1.6e9
    assert (start.session_log.status, start.step) == (tf.compat.v1.SessionLog.START, 1)
    assert [event.step for event in rest] == [1, 2, 3]
    assert points(tmp_path) == [("train/loss", 1, 0.1), ("train/loss", 2, 0.2), ("train/loss", 3, 0.3)]


def test_without_points_there_is_no_file(tmp_path: Path) -> None:
    EventFile(str(tmp_path)).start(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["plain", "with settings"])
@pytest.mark.parametrize("last_update", [-1, 0, 3, 7, 9])
def test_later_points_are_forgotten(last_update: int, settings: dict, tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), settings).rename(tmp_path / "events.out.tfevents.1.a")
    write(tmp_path, range(6, 9), settings).rename(tmp_path / "events.out.tfevents.2.a")
    events.forget_later_events(str(tmp_path), last_update)
    assert [update for tag, update, _ in points(tmp_path) if tag == "train/loss"] == [
        *range(1, min(last_update, 8) + 1)
    ]
    num_files = 0 if last_update < 1 else 1 if last_update < 6 else 2
    assert len(list(tmp_path.iterdir())) == num_files


def test_a_torn_record_is_cut_off_and_other_programs_files_stay(tmp_path: Path) -> None:
    torn = write(tmp_path, range(1, 4)).rename(tmp_path / "events.out.tfevents.1.a")
    os.truncate(torn, torn.stat().st_size - 3)
    with tf.Graph().as_default():
        writer = tf.compat.v1.summary.FileWriter(str(tmp_path), filename_suffix=".other")
        value = tf.compat.v1.Summary.Value(tag="accuracy", simple_value=0.5)
        writer.add_summary(tf.compat.v1.Summary(value=[value]), 100)
        writer.close()
    (other,) = tmp_path.glob("*.other")
    with other.open("ab") as file:
        file.write(frame_record(b"\xff no event"))
    before = other.read_bytes()
    events.forget_later_events(str(tmp_path), 3)
    assert other.read_bytes() == before
    other.unlink()
    assert [update for _, update, _ in points(tmp_path)] == [1, 2]


def test_points_of_tensorflow_s_own_writer_are_forgotten_too(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        writer = tf.compat.v1.summary.FileWriter(str(tmp_path))
        for update in range(1, 6):
            value = tf.compat.v1.Summary.Value(tag="train/loss", simple_value=update / 10)
            writer.add_summary(tf.compat.v1.Summary(value=[value]), update)
        writer.close()
    events.forget_later_events(str(tmp_path), 2)
    assert [update for _, update, _ in points(tmp_path)] == [1, 2]


def test_a_real_tensorboard_shows_curves_settings_and_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the test extra: bash init_tf.sh --test")
    for name, rate in (("a", 0.25), ("b", 0.5)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, range(1, 4), {**SETTINGS, "optim": {**SETTINGS["optim"], "learning_rate": rate}})
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path}", "--port=0", "--load_fast=false"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        root = _address(tmp_path / "log")

        def get(path: str, body: Any = None) -> Any:
            data = json.dumps(body).encode() if body is not None else None
            request = urllib.request.Request(f"{root}{path}", data, {"Content-Type": "application/json"})
            return json.load(urllib.request.urlopen(request, timeout=30))

        end = time.monotonic() + 60
        while set(get("data/plugin/scalars/tags")) != {"a", "b"} and time.monotonic() < end:
            time.sleep(0.1)
        curve = get("data/plugin/scalars/scalars?run=a&tag=train/loss")
        assert [(step, round(value, 3)) for _, step, value in curve] == [(1, 0.1), (2, 0.2), (3, 0.3)]
        assert sorted(get("data/plugin/text/tags")["a"]) == ["settings/optim", "settings/run"]
        (text,) = get("data/plugin/text/text?run=b&tag=settings/optim")
        assert "<td>--learning_rate</td>" in text["text"] and "<td>0.5</td>" in text["text"]
        experiment = get("data/plugin/hparams/experiment", {"experimentName": ""})
        found = {one["name"] for one in experiment["hparamInfos"]}
        assert "learning_rate" in found and found <= {"do_train", "seed", "learning_rate", "kind"}
    finally:
        server.terminate()
        server.wait(30)


def _address(log: Path) -> str:
    """The address that TensorBoard prints when it listens."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        words = [word for word in log.read_text().split() if word.startswith("http://localhost:")]
        if words:
            return words[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
