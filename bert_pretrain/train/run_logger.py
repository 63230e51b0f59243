"""What a run reports: console, metrics.jsonl, TensorBoard events, dllogger's lines and MLPerf's log.

Only rank 0 reports. The methods do nothing on other ranks, so that no caller asks for the rank.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from typing import Any, Dict, Optional, TextIO

import tensorflow as tf
from tqdm import tqdm

from bert_pretrain.train.mlperf_log import MlperfLog

Values = Dict[str, Optional[float]]

# Console label, key of the values, format.
_LINE = (
    ("loss", "loss", "{:.4f}"),
    ("mlm", "masked_lm_loss", "{:.4f}"),
    ("mlm_acc", "masked_lm_accuracy", "{:.4f}"),
    ("(most frequent token alone:", "most_frequent_token", "{:.4f})"),
    ("nsp_acc", "next_sentence_accuracy", "{:.3f}"),
    ("lr", "learning_rate", "{:.3e}"),
    ("examples/s", "examples_per_second", "{:.2f}"),
    ("updates/s", "updates_per_second", "{:.3f}"),
)


class RunLogger:
    """Writes messages and measured values to the console and to the files of the run."""

    def __init__(
        self,
        output_dir: str,
        dllog_path: Optional[str],
        num_updates: int,
        report_loss: bool,
        is_root: bool,
        mlperf: MlperfLog,
    ) -> None:
        self.mlperf = mlperf
        self._is_root = is_root
        self._hidden = () if report_loss else ("loss", "masked_lm_loss")
        self._begin = time.time()
        self._num_updates = num_updates
        self._bar: Optional[tqdm] = None
        if is_root:
            self._metrics = _open("output_dir", os.path.join(output_dir, "metrics.jsonl"))
            self._dllog = _open("dllog_path", dllog_path or os.path.join(output_dir, "bert_dllog.json"))
            with tf.Graph().as_default():  # FileWriter cannot be created in eager mode
                self._events = tf.compat.v1.summary.FileWriter(output_dir)

    def info(self, text: str) -> None:
        """Prints one line on the console."""
        if not self._is_root:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def show_progress(self, update: int) -> None:
        """Moves the progress bar of a terminal. Elsewhere the lines of info_values show the progress."""
        if not self._is_root or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = tqdm(total=self._num_updates, initial=update - 1, unit="update", dynamic_ncols=True)
        self._bar.update(update - self._bar.n)

    def record(self, kind: str, update: int, examples: int, values: Values) -> None:
        """Writes values of training (kind "train") or evaluation ("eval") to metrics.jsonl and dllogger's file."""
        if not self._is_root:
            return
        point = {"kind": kind, "update": update, "examples": examples, "time": round(time.time(), 3), **values}
        self._metrics.write(json.dumps(point) + "\n")
        self._metrics.flush()
        self._write_dllog(kind, update, values)

    def add_events(self, kind: str, update: int, values: Values) -> None:
        """Adds a point to TensorBoard's curves."""
        if not self._is_root:
            return
        scalars = [
            tf.compat.v1.Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in values.items()
            if value is not None
        ]
        self._events.add_summary(tf.compat.v1.Summary(value=scalars), update)

    def info_values(self, head: str, values: Values) -> None:
        """Prints one line on the console: head, then the most important of the values."""
        shown = [
            f"{label} {text.format(values[key])}"
            for label, key, text in _LINE
            if values.get(key) is not None and key not in self._hidden
        ]
        self.info("  ".join([head, *shown]))

    def close(self) -> None:
        """Ends the progress bar and closes the files."""
        self.mlperf.close()
        if not self._is_root:
            return
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._events.close()
        self._metrics.close()
        self._dllog.close()

    def _write_dllog(self, kind: str, update: int, values: Values) -> None:
        """The line format of dllogger's JSONStreamBackend: 'DLLL ' and a JSON object."""
        now = time.time()
        entry: dict[str, Any] = {
            "timestamp": str(now),
            "datetime": datetime.datetime.fromtimestamp(now).strftime("%Y-%m-%d %H:%M:%S.%f"),
            "elapsedtime": str(now - self._begin),
            "type": "LOG",
            "step": [update] if kind == "train" else [update, kind],
            "data": {name: value for name, value in values.items() if value is not None},
        }
        self._dllog.write(f"DLLL {json.dumps(entry)}\n")
        self._dllog.flush()


def _open(flag: str, path: str) -> TextIO:
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return open(path, "a", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--{flag}: {path} cannot be written: {error.strerror}") from None
