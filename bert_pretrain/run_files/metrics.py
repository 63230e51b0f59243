"""metrics.jsonl and dllogger's file: their lines as they are written, and as they are read back.

A continued run reads what it keeps, a report shows what is there.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Collection
from typing import Any, Callable, Dict, Optional

from bert_pretrain.system.files import open_regular

METRICS_JSONL = "metrics.jsonl"
# Kinds of records.
TRAINING = "train"
EVALUATION = "eval"
EVALUATION_ALONE = "eval_alone"  # of a start that does not train
_DLLOG_PREFIX = "DLLL "
_SAME_START_SECONDS = 1e-3
_MAX_UPDATE = 2**53  # a number that is larger is none of ours

Values = Dict[str, Optional[float]]
Point = Dict[str, Any]  # a record of metrics.jsonl: kind, update, examples, time, and values
IsObsolete = Callable[[str, int], bool]  # (kind, update)


def metrics_line(kind: str, update: int, examples: int, values: Values) -> bytes:
    """A record of metrics.jsonl."""
    point = {"kind": kind, "update": update, "examples": examples, "time": round(time.time(), 3), **values}
    return f"{json.dumps(point)}\n".encode()


def dllog_line(kind: str, update: int, values: Values, begin: float) -> bytes:
    """A line of dllogger's JSONStreamBackend: 'DLLL ' and a JSON object. begin: when this start of the run began."""
    now = time.time()
    entry = {
        "timestamp": str(now),
        "datetime": datetime.datetime.fromtimestamp(now).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "elapsedtime": str(now - begin),
        "type": "LOG",
        "step": [update] if kind == TRAINING else [update, kind],
        "data": {name: value for name, value in values.items() if value is not None},
    }
    return f"{_DLLOG_PREFIX}{json.dumps(entry)}\n".encode()


def parse_metrics_line(line: bytes) -> Optional[Point]:
    """The record in a line of metrics.jsonl, None where the line is no record."""
    try:
        point = json.loads(line)
        update = point["update"]
        is_record = isinstance(point["kind"], str) and isinstance(update, int) and 0 <= update < _MAX_UPDATE
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return point if is_record else None


def read_metrics(output_dir: str, kinds: Optional[Collection[str]] = None) -> tuple[list[Point], list[str]]:
    """The records of metrics.jsonl in the order of updates, of each kind and update the last one; and notes.

    kinds: which records are wanted; None: all. The notes say what is missing, damaged or cut short.
    """
    points: dict[tuple[str, int], Point] = {}
    damaged, notes = [], []
    try:
        with open_regular(os.path.join(output_dir, METRICS_JSONL), "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    notes.append(f"{METRICS_JSONL}: the last line is incomplete, as while it is written, and left out")
                elif (point := parse_metrics_line(line)) is None:
                    damaged.append(number)
                elif kinds is None or point["kind"] in kinds:
                    points[point["kind"], point["update"]] = point
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        return [], [f"{METRICS_JSONL} {reason}: there are no curves"]
    if damaged:
        notes.append(f"{METRICS_JSONL}: {len(damaged)} damaged line(s) left out, the first is line {damaged[0]}")
    if not points:
        notes.append(f"{METRICS_JSONL} has no records yet: there are no curves")
    return sorted(points.values(), key=lambda point: point["update"]), notes


def read_evaluations(output_dir: str, last_update: int) -> list[Point]:
    """The evaluations in metrics.jsonl up to last_update, in the order of updates; none where there is no such file."""
    points, _ = read_metrics(output_dir, [EVALUATION])
    return [point for point in points if point["update"] <= last_update]


def keeps_metrics(line: bytes, is_obsolete: IsObsolete) -> bool:
    """False for a record that is obsolete, and for a line that is no record."""
    point = parse_metrics_line(line)
    return point is not None and not is_obsolete(point["kind"], point["update"])


def keeps_dllog(line: bytes, is_obsolete: IsObsolete, starts: Optional[Collection[float]]) -> bool:
    """False for an obsolete line of this run. Other programs' lines stay.

    starts: when the starts of this run began, where the file is shared with other runs; None: every line is this run's.
    """
    try:
        entry = json.loads(line[len(_DLLOG_PREFIX) :])
        update, *kinds = entry["step"]
        begin = float(entry["timestamp"]) - float(entry["elapsedtime"])
        is_own = starts is None or any(abs(begin - start) < _SAME_START_SECONDS for start in starts)
        return not (is_own and is_obsolete(kinds[0] if kinds else TRAINING, update))
    except (ValueError, TypeError, KeyError, RecursionError):
        return True
