"""A run's folder as a report sees it: run.json, metrics.jsonl and results.json, whole or not.

What is missing or damaged is a note for the reader. ValueError only where there is no run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any, Dict, NamedTuple, Optional

from bert_pretrain.system import files

RUN, METRICS, RESULTS, LOCK = "run.json", "metrics.jsonl", "results.json", ".training.lock"
EVALUATIONS = ("eval", "eval_alone")

Point = Dict[str, Any]


class Run(NamedTuple):
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
        last = max((p["update"] for p in self.points if p["kind"] == "train"), default=0)
        return max(last, done) if isinstance(done, int) and not self.is_locked else last

    def examples_per_update(self) -> Optional[float]:
        """G = W x A x B, from the last record; None without records."""
        found = [p["examples"] / p["update"] for p in self.points if p["update"] and is_number(p.get("examples"))]
        return found[-1] if found and found[-1] > 0 else None


def is_number(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """content[key] if that is a dictionary, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def read_all(folders: Sequence[str]) -> list[Run]:
    """The runs, with names that differ. ValueError for a folder that is none or is given twice."""
    real = [os.path.realpath(folder) for folder in folders]
    for number, path in enumerate(real):
        if path in real[:number]:
            raise ValueError(f"{folders[number]} is given twice; give each run once")
    return [_read(folder, name) for folder, name in zip(folders, _names(real))]


def _names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that are different."""
    parts = [path.strip(os.sep).split(os.sep) for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _read(folder: str, name: str) -> Run:
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder; give the --output_dir of a run")
    if not any(os.path.exists(os.path.join(folder, file)) for file in (RUN, METRICS)):
        raise ValueError(f"{folder} holds no run, neither {RUN} nor {METRICS}; give the --output_dir of a run")
    notes: list[str] = []
    description = _read_json(folder, RUN, notes, "settings, versions and starts are missing below")
    points = _read_metrics(os.path.join(folder, METRICS), notes)
    is_locked = os.path.exists(os.path.join(folder, LOCK))
    without = "the run is in progress" if is_locked else "the run was killed, or is in progress on another host"
    results = _read_json(folder, RESULTS, notes, f"{without}; values come from {METRICS}")
    if is_locked and results:
        notes.append(f"{RESULTS} is of an earlier start: {LOCK} says that the run goes on, or that it was killed")
    if points and not any(point["kind"] in EVALUATIONS for point in points):
        notes.append("no evaluation so far; accuracies are those of training batches")
    return Run(name, folder, description, points, results, is_locked, notes)


def _read_json(folder: str, name: str, notes: list[str], consequence: str) -> dict[str, Any]:
    try:
        with files.open_regular(os.path.join(folder, name)) as file:
            content = json.load(file)
        if isinstance(content, dict):
            return content
        problem = "is no JSON object"
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        problem = "is damaged: no JSON"
    notes.append(f"{name} {problem}: {consequence}")
    return {}


def _read_metrics(path: str, notes: list[str]) -> list[Point]:
    """The records, in the order of updates, of each kind and update the last one."""
    try:
        with files.open_regular(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        notes.append(f"{METRICS} {reason}: there are no curves")
        return []
    *whole, torn = lines
    if torn:
        notes.append(f"{METRICS}: the last line is incomplete, as while it is written, and left out")
    records = [(number, _record(line)) for number, line in enumerate(whole, start=1)]
    bad = [number for number, record in records if record is None]
    if bad:
        notes.append(f"{METRICS}: {len(bad)} damaged line(s) left out, the first is line {bad[0]}")
    found = {(record["kind"], record["update"]): record for _, record in records if record is not None}
    if not found:
        notes.append(f"{METRICS} has no records yet: there are no curves")
    return sorted(found.values(), key=lambda point: point["update"])


def _record(line: bytes) -> Optional[Point]:
    """The record of a line, None where it is none."""
    try:
        point = json.loads(line)
        is_record = isinstance(point["kind"], str) and isinstance(point["update"], int) and 0 <= point["update"] < 2**53
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return point if is_record else None
