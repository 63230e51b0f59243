"""Lines of metrics.jsonl and of dllogger's file: written, and read back when a run is continued."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Collection
from typing import Any, Callable, Dict, Optional

METRICS_JSONL = "metrics.jsonl"
_DLLOG_PREFIX = "DLLL "
_SAME_START_SECONDS = 1e-3

Values = Dict[str, Optional[float]]
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
        "step": [update] if kind == "train" else [update, kind],
        "data": {name: value for name, value in values.items() if value is not None},
    }
    return f"{_DLLOG_PREFIX}{json.dumps(entry)}\n".encode()


def keeps_metrics(line: bytes, is_obsolete: IsObsolete) -> bool:
    """False for a record that is obsolete, and for a line that is no record."""
    try:
        point = json.loads(line)
        return not is_obsolete(point["kind"], point["update"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def keeps_dllog(line: bytes, is_obsolete: IsObsolete, starts: Optional[Collection[float]]) -> bool:
    """False for an obsolete line of this run. Other programs' lines stay.

    starts: when the starts of this run began, where the file is shared with other runs; None: every line is this run's.
    """
    try:
        entry = json.loads(line[len(_DLLOG_PREFIX) :])
        update, kind = (*entry["step"], "train")[:2]
        begin = float(entry["timestamp"]) - float(entry["elapsedtime"])
        is_own = starts is None or any(abs(begin - start) < _SAME_START_SECONDS for start in starts)
        return not (is_own and is_obsolete(kind, update))
    except (ValueError, TypeError, KeyError, RecursionError):
        return True


def read_evaluations(output_dir: str, last_update: int) -> list[dict[str, Any]]:
    """The evaluations in metrics.jsonl up to last_update, in the order of updates; none where there is no such file."""
    try:
        with open(os.path.join(output_dir, METRICS_JSONL), "rb") as file:
            lines = [line for line in file if line.endswith(b"\n") and b'"eval"' in line]
    except OSError:
        return []
    kept = [line for line in lines if keeps_metrics(line, lambda kind, update: kind != "eval" or update > last_update)]
    return sorted(map(json.loads, kept), key=lambda point: point["update"])
