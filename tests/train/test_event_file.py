"""TensorBoard's event files: TensorFlow reads them, and a continued run keeps no point twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.data.tfrecord import frame
from bert_pretrain.train import event_file
from bert_pretrain.train.event_file import EventFile


def points(output_dir: Path) -> list[tuple[str, int, float]]:
    """Tag, update and value of every point, file by file, as TensorFlow reads them."""
    return [
        (value.tag, event.step, round(value.simple_value, 3))
        for path in sorted(output_dir.glob("events.out.tfevents.*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


def write(output_dir: Path, updates: range) -> Path:
    events = EventFile(str(output_dir), pytest.fail)
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
    EventFile(str(tmp_path), pytest.fail).start(1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("last_update", [-1, 0, 3, 7, 9])
def test_later_points_are_forgotten(last_update: int, tmp_path: Path) -> None:
    write(tmp_path, range(1, 6)).rename(tmp_path / "events.out.tfevents.1.a")
    write(tmp_path, range(6, 9)).rename(tmp_path / "events.out.tfevents.2.a")
    event_file.forget_later(str(tmp_path), last_update)
    assert [update for _, update, _ in points(tmp_path)] == list(range(1, min(last_update, 8) + 1))
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
        file.write(frame(b"\xff no event"))
    before = other.read_bytes()
    event_file.forget_later(str(tmp_path), 3)
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
    event_file.forget_later(str(tmp_path), 2)
    assert [update for _, update, _ in points(tmp_path)] == [1, 2]
