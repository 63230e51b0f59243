"""What a run reports: console, metrics.jsonl, run.json, results.json, TensorBoard, dllogger's lines, MLPerf's log.

Only rank 0 reports. The methods do nothing on other ranks, so that no caller asks for the rank. Nothing here raises
OSError: a full disk or a closed terminal ends no run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Collection, Mapping
from typing import Any, Optional

from tqdm import tqdm

from bert_pretrain.config.training import Config
from bert_pretrain.data.vocab import NUM_FREQUENT_TOKENS
from bert_pretrain.mlperf.mllog import MlperfLog
from bert_pretrain.run_files import events, metrics, results, run_json
from bert_pretrain.run_files.events import EventFile
from bert_pretrain.run_files.metrics import IsObsolete, Values
from bert_pretrain.run_files.report_file import AppendedFile, JsonFile
from bert_pretrain.system import files
from bert_pretrain.system.console import log

# Console label, key of the values, format.
_LINE = (
    ("loss", "loss", "{:.4f}"),
    ("mlm", "masked_lm_loss", "{:.4f}"),
    ("mlm_acc", "masked_lm_accuracy", "{:.4f}"),
    (f"beyond the {NUM_FREQUENT_TOKENS} most frequent tokens", "masked_lm_accuracy_rare", "{:.4f}"),
    ("(most frequent token alone:", "most_frequent_token", "{:.4f})"),
    ("nsp_acc", "next_sentence_accuracy", "{:.3f}"),
    ("lr", "learning_rate", "{:.3e}"),
    ("examples/s", "examples_per_second", "{:.2f}"),
    ("updates/s", "updates_per_second", "{:.3f}"),
)
_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_COLOUR = "green"
# Label, key of the values, format.
_SHOWN_IN_BAR = (
    ("loss", "loss", "{:.4f}"),
    ("mlm_acc", "masked_lm_accuracy", "{:.4f}"),
    ("examples/s", "examples_per_second", "{:.1f}"),
)


class RunLogger:
    """Writes messages and measured values to the console and to the files of the run."""

    def __init__(self, config: Config, is_root: bool, mlperf: MlperfLog) -> None:
        """ValueError where a path cannot be a file."""
        run, self._output_dir = config.run, config.run.output_dir
        self.mlperf = mlperf
        self.begin = time.time()
        self._is_root = is_root
        self._hidden = () if run.report_loss else ("loss", "masked_lm_loss")
        self._bar = ProgressBar(config.optim.num_train_steps, self._hidden)
        if not is_root:
            return
        dllog_path = run.dllog_path or self._in_output_dir("bert_dllog.json")
        self._metrics = AppendedFile(_usable("output_dir", self._in_output_dir(metrics.METRICS_JSONL)))
        is_own = not run.dllog_path
        self._dllog = AppendedFile(_usable("output_dir" if is_own else "dllog_path", dllog_path, is_own), is_own)
        self._events = EventFile(self._output_dir)
        self._json = {name: JsonFile(self._in_output_dir(name)) for name in (run_json.RUN_JSON, results.RESULTS_JSON)}

    def _in_output_dir(self, name: str) -> str:
        return os.path.join(self._output_dir, name)

    def info(self, text: str) -> None:
        """Prints one line on the console."""
        if self._is_root:
            log.info(text)

    @property
    def has_bar(self) -> bool:
        """True where a terminal shows a progress bar. Elsewhere the lines of info_values show the progress."""
        return self._is_root and self._bar.is_shown

    def show_progress(self, update: int, values: Values) -> None:
        """Moves the progress bar of a terminal."""
        if self._is_root:
            self._bar.move(update, values)

    def forget_later(self, last_update: int, starts: Collection[float]) -> None:
        """Removes what earlier starts, which began at times `starts`, reported of updates after last_update.

        This start computes those again. -1: all.
        """
        if not self._is_root:
            return
        self.forget(lambda kind, update: update > last_update, starts)
        self._events.start(last_update + 1)
        try:
            events.forget_later_events(self._output_dir, last_update)
        except OSError as error:
            log.warning(f"warning: {self._output_dir}: event files keep repeated points: {error.strerror}")
        for name in (*self._json, metrics.METRICS_JSONL):
            with contextlib.suppress(OSError):
                files.remove_partials(os.path.join(self._output_dir, name))

    def forget(self, is_obsolete: IsObsolete, starts: Collection[float] = ()) -> None:
        """Removes the records of metrics.jsonl and of dllogger's file for which is_obsolete(kind, update) is true.

        A dllogger's file outside of output_dir may be shared with other runs. Only lines of `starts` are removed there.
        """
        if self._is_root:
            is_inside = os.path.realpath(self._dllog.path).startswith(os.path.realpath(self._output_dir) + os.sep)
            owners = None if is_inside else starts
            self._metrics.keep_lines(lambda line: metrics.keeps_metrics(line, is_obsolete))
            self._dllog.keep_lines(lambda line: metrics.keeps_dllog(line, is_obsolete, owners))

    def record(self, kind: str, update: int, examples: int, values: Values) -> None:
        """Writes values of training (kind "train") or evaluation ("eval") to metrics.jsonl and dllogger's file."""
        if not self._is_root:
            return
        self._metrics.append(metrics.metrics_line(kind, update, examples, values))
        self._dllog.append(metrics.dllog_line(kind, update, values, self.begin))
        for file in self._json.values():
            file.flush()

    def describe(self, settings: dict[str, dict[str, Any]]) -> None:
        """Shows the settings in TensorBoard, as text and as hyperparameters."""
        if self._is_root:
            self._events.describe(settings)

    def add_events(self, kind: str, update: int, values: Values) -> None:
        """Adds a point to TensorBoard's curves."""
        if self._is_root:
            self._events.add(kind, update, values)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replaces run.json or results.json."""
        if self._is_root:
            self._json[name].replace(content)

    def info_values(self, head: str, values: Values) -> None:
        """Prints one line on the console: head, then the most important of the values."""
        shown = [
            f"{label} {text.format(values[key])}"
            for label, key, text in _LINE
            if values.get(key) is not None and key not in self._hidden
        ]
        self.info("  ".join([head, *shown]))

    def close(self) -> None:
        """Ends the progress bar and writes what could not be written before."""
        self.mlperf.close()
        if not self._is_root:
            return
        self._bar.close()
        for file in (self._metrics, self._dllog, self._events.file, *self._json.values()):
            file.close()


def _usable(flag: str, path: str, is_own: bool = True) -> str:
    """The path, if it can be appended to or the disk is only full. ValueError otherwise."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "ab", opener=files.open_itself if is_own else None):
            return path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return path
        raise ValueError(f"--{flag}: {path} cannot be written: {error.strerror}") from None


class ProgressBar:
    """Updates done, the time left, loss, accuracy and speed. OSError of a closed terminal is ignored."""

    def __init__(self, num_updates: int, hidden: tuple[str, ...] = ()) -> None:
        """hidden: keys of values that are not shown."""
        self._num_updates, self._hidden = num_updates, hidden
        self._bar: Optional[tqdm[Any]] = None

    @property
    def is_shown(self) -> bool:
        """True where stderr is a terminal."""
        return sys.stderr.isatty()

    def move(self, update: int, values: Mapping[str, Optional[float]]) -> None:
        """Shows that `update` updates are done, and the values of the last one. NO_COLOR makes the bar colourless."""
        if not self.is_shown:
            return
        with contextlib.suppress(OSError):
            if self._bar is None:
                colour = None if os.environ.get("NO_COLOR") else _COLOUR
                self._bar = tqdm(
                    total=self._num_updates,
                    initial=update - 1,
                    bar_format=_FORMAT,
                    dynamic_ncols=True,
                    colour=colour,
                    file=sys.stderr,
                )
            self._bar.set_postfix_str(self._text(values), refresh=False)
            self._bar.update(update - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is; lines follow below it."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    def _text(self, values: Mapping[str, Optional[float]]) -> str:
        return ", ".join(
            f"{label} {text.format(values[key])}"
            for label, key, text in _SHOWN_IN_BAR
            if values.get(key) is not None and key not in self._hidden
        )
