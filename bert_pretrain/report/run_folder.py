"""A run's folder as a report sees it: run.json, metrics.jsonl and results.json, whole or not.

What is missing or damaged is a note for the reader. ValueError only where there is no run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.run_files.metrics import EVALUATION, EVALUATION_ALONE, METRICS_JSONL, TRAINING, Point, read_metrics
from bert_pretrain.run_files.report_file import UnreadableFileError, read_json_object
from bert_pretrain.run_files.results import RESULTS_JSON
from bert_pretrain.run_files.run_json import RUN_JSON
from bert_pretrain.system import locks

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

TRAINING_KINDS = (TRAINING,)
EVALUATION_KINDS = (EVALUATION, EVALUATION_ALONE)


class ReportedRun(NamedTuple):
    """One run. Dictionaries are empty where their file is missing or damaged."""

    name: str  # short, different from the other runs' on the page
    folder: str
    description: dict[str, Any]  # run.json
    points: list[Point]  # metrics.jsonl, in the order of updates
    results: dict[str, Any]  # results.json
    is_locked: bool  # a job trains there, or was killed
    notes: list[str]

    def setting(self, part: str, name: str) -> Any:
        """A setting of run.json, None where that is missing."""
        return section(section(self.description, "settings"), part).get(name)

    def curve(self, kinds: Sequence[str], name: str) -> list[tuple[int, float]]:
        """(update, value) of the records that have a finite value."""
        found = ((p["update"], p.get(name)) for p in self.points if p["kind"] in kinds)
        return [(update, float(value)) for update, value in found if is_number(value)]

    def last(self, kinds: Sequence[str], name: str) -> Optional[float]:
        """The last finite value, None where there is none."""
        curve = self.curve(kinds, name)
        return curve[-1][1] if curve else None

    def updates(self) -> int:
        """Updates done, as far as the files tell."""
        done = self.results.get("updates")
        last = max((p["update"] for p in self.points if p["kind"] == TRAINING), default=0)
        return max(last, done) if isinstance(done, int) and not self.is_locked else last

    def examples_per_update(self) -> Optional[float]:
        """The mean up to the last record, which is G = W x A x B without --rampup_batch_size; None without records."""
        found = [examples / update for update, examples in self._examples() if update]
        return found[-1] if found and found[-1] > 0 else None

    def examples_at(self, update: float) -> float:
        """Examples trained on up to an update; between two records, as if it grew evenly."""
        points = [(0, 0.0), *self._examples()]
        return float(np.interp(update, [place for place, _ in points], [examples for _, examples in points]))

    def _examples(self) -> list[tuple[int, float]]:
        """(updates, examples) of the records."""
        return [(p["update"], p["examples"]) for p in self.points if is_number(p.get("examples"))]


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """content[key] if that is a dictionary, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def read_runs(folders: Sequence[str]) -> list[ReportedRun]:
    """The runs, with names that differ. ValueError for a folder that holds no run or is given twice."""
    real = [os.path.realpath(folder) for folder in folders]
    for number, path in enumerate(real):
        if path in real[:number]:
            raise ValueError(f"{folders[number]} is given twice; give each run once")
    return [_read_run(folder, name) for folder, name in zip(folders, _names(real))]


def _names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that are different."""
    parts = [path.strip(os.sep).split(os.sep) for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _read_run(folder: str, name: str) -> ReportedRun:
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder; give the --output_dir of a run")
    if not any(os.path.exists(os.path.join(folder, file)) for file in (RUN_JSON, METRICS_JSONL)):
        raise ValueError(
            f"{folder} holds no run, neither {RUN_JSON} nor {METRICS_JSONL}; give the --output_dir of a run"
        )
    notes: list[str] = []
    description = _read_json(folder, RUN_JSON, notes, "settings, versions and starts are missing below")
    points, notes_on_points = read_metrics(folder)
    notes += notes_on_points
    lock = locks.TRAINING.file_name
    is_locked = os.path.exists(os.path.join(folder, lock))
    without = "the run is in progress" if is_locked else "the run was killed, or is in progress on another host"
    results = _read_json(folder, RESULTS_JSON, notes, f"{without}; values come from {METRICS_JSONL}")
    if is_locked and results:
        notes.append(f"{RESULTS_JSON} is of an earlier start: {lock} says that the run goes on, or that it was killed")
    if points and not any(point["kind"] in EVALUATION_KINDS for point in points):
        notes.append("no evaluation so far; accuracies are those of training batches")
    return ReportedRun(name, folder, description, points, results, is_locked, notes)


def _read_json(folder: str, name: str, notes: list[str], consequence: str) -> dict[str, Any]:
    """The content of a file; {} and a note where there is none."""
    try:
        return read_json_object(os.path.join(folder, name))
    except UnreadableFileError as problem:
        notes.append(f"{name} {problem}: {consequence}")
        return {}
