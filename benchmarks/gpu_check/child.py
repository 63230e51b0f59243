"""Parts of the check in a process of their own: `python -m benchmarks.gpu_check.child FUNCTION RESULT.json ARGUMENTS`.

FUNCTION is one of PARTS, ARGUMENTS are its keyword arguments as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from bert_pretrain.tensorflow_compat import tensorflow_import


class Report:
    """What the parts of this process have found, in a file that is whole after each step, so that a crash keeps it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._begin = time.monotonic()

    def __call__(self, name: str, is_done: bool = True, **values: Any) -> None:
        """Adds values to part `name`. is_done: the part has ended, and the next begins.

        figures: one line for people. wrong: what is not as it should be; one such line fails the part. not_run: why it
        says nothing here. table: columns and rows for the report, under a title.
        """
        now = time.monotonic()
        part = self._found.setdefault(name, {})
        part.update(values, is_done=is_done, seconds=now - self._begin)
        if is_done:
            self._begin = now
        with open(f"{self._path}.partial", "w", encoding="utf-8") as file:
            json.dump(self._found, file)
        os.replace(f"{self._path}.partial", self._path)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    """A table for Report."""
    return {"title": title, "columns": columns, "rows": rows}


def main() -> None:
    function, path, arguments = sys.argv[1:]
    report = Report(path)
    with tensorflow_import.imported_quickly():
        from benchmarks.gpu_check import commands, numbers, start, updates
    parts = {
        "start": start.check_start,
        "updates": updates.measure_updates,
        "numbers": numbers.compare,
        "bits": commands.compare_bits,
        "run": commands.run_and_resume,
        "ranks": commands.compare_ranks,
        "compilations": commands.count_compilations,
    }
    parts[function](report, **json.loads(arguments))


if __name__ == "__main__":
    main()
