"""TensorBoard's event files: TFRecords of Event protos, written without TensorFlow's FileWriter.

FileWriter writes in a thread of its own and loses what a full disk refuses. Each start of a training run has a file. It
begins with a SessionLog START event, at which a TensorBoard that is already open forgets the points of later updates,
and with the settings: a table for each part under Text, and all of them under HParams.
"""

from __future__ import annotations

import glob
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorflow.core.util.event_pb2 import Event, SessionLog

from bert_pretrain.data.shards.tfrecord import FRAME_SIZE, HEADER, frame_record, record_header
from bert_pretrain.run_files.report_file import AppendedFile
from bert_pretrain.system.files import open_itself, printable

_FILE_PREFIX = "events.out.tfevents."
_VERSION = "brain.Event:2"
_OWN_TAGS = ("train/", "eval/")
_SETTINGS_PREFIX = "settings/"


class EventFile:
    """The event file of one start of a run. It is made with the first point."""

    def __init__(self, output_dir: str) -> None:
        name = f"{_FILE_PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self.file = AppendedFile(os.path.join(output_dir, name))
        self._first_update = 0
        self._is_new = True
        self._settings: Mapping[str, Mapping[str, Any]] = {}

    def start(self, first_update: int) -> None:
        """All points that come belong to this update or to later ones."""
        self._first_update = first_update

    def describe(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """The settings, by part and flag, which the file begins with."""
        self._settings = settings

    def add(self, kind: str, update: int, values: Mapping[str, Optional[float]]) -> None:
        """Adds a point to the curves `kind`/name; a value of None has none."""
        if self._is_new:
            start = SessionLog(status=SessionLog.START)
            self._append(Event(file_version=_VERSION))
            self._append(Event(step=self._first_update, session_log=start))
            if self._settings:
                summary = settings_summary(self._settings)
                self._append(Event(step=self._first_update, summary=summary))
            self._is_new = False
        scalars = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
            if value is not None
        ]
        self._append(Event(step=update, summary=Summary(value=scalars)))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        self.file.append(frame_record(event.SerializeToString()))


def forget_later_events(output_dir: str, last_update: int) -> None:
    """Removes this program's points after `last_update` from the event files of earlier starts.

    Updates never decrease within a file, so only its end is cut, which needs no space on the disk. A file of which
    nothing remains is removed.
    """
    for path in glob.glob(os.path.join(glob.escape(output_dir), f"{_FILE_PREFIX}*")):
        with open(path, "rb", opener=open_itself) as file:
            content = file.read()
        ends = list(_record_ends(content))
        num_kept = len(ends)
        while num_kept and _is_later(content[_record_begin(ends, num_kept - 1) : ends[num_kept - 1]], last_update):
            num_kept -= 1
        if num_kept <= 1 < len(ends):
            os.remove(path)
        elif num_kept < len(ends) or (ends and ends[-1] < len(content)):
            os.truncate(path, ends[num_kept - 1] if num_kept else 0)


def _record_begin(ends: list[int], number: int) -> int:
    return ends[number - 1] if number else 0


def _record_ends(content: bytes) -> Iterator[int]:
    """Where each whole record ends, up to the first that is incomplete or damaged."""
    end = 0
    while end + FRAME_SIZE <= len(content):
        (length, _) = HEADER.unpack_from(content, end)
        if content[end : end + HEADER.size] != record_header(length) or end + length + FRAME_SIZE > len(content):
            return
        end += length + FRAME_SIZE
        yield end


def _is_later(record: bytes, last_update: int) -> bool:
    """True for a point of this program or a START event after last_update, and for a damaged record."""
    data = record[HEADER.size : len(record) - (FRAME_SIZE - HEADER.size)]
    if frame_record(data) != record:
        return True
    try:
        event = Event.FromString(data)
    except DecodeError:  # another program's
        return False
    what = event.WhichOneof("what")
    is_own = what == "session_log" or (what == "summary" and _is_own([value.tag for value in event.summary.value]))
    return is_own and event.step > last_update


def _is_own(tags: list[str]) -> bool:
    """True for the tags of this program's curves or of its settings."""
    return all(tag.startswith(_OWN_TAGS) for tag in tags) or any(tag.startswith(_SETTINGS_PREFIX) for tag in tags)


def settings_summary(settings: Mapping[str, Mapping[str, Any]]) -> Summary:
    """settings/PART for each part, and the hyperparameters as tensorboard writes them, where it is installed."""
    summary = Summary()
    for part, fields in settings.items():
        table = tf.make_tensor_proto(_settings_table(fields), tf.string)
        value = summary.value.add(tag=f"{_SETTINGS_PREFIX}{part}", tensor=table)
        value.metadata.plugin_data.plugin_name, value.metadata.data_class = "text", DATA_CLASS_TENSOR
    try:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    except ImportError:
        return summary
    given = {
        name: printable(value) if isinstance(value, str) else value
        for part in settings.values()
        for name, value in part.items()
        if value is not None
    }
    summary.MergeFromString(hparams_pb(given).SerializeToString())
    return summary


def _settings_table(fields: Mapping[str, Any]) -> str:
    """Markdown."""
    return printable(
        "\n".join(["| flag | value |", "|---|---|", *(f"| --{name} | {value} |" for name, value in fields.items())])
    )
