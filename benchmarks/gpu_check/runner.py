"""The parts of the check, one process each, in order of importance, within the time limit. No TensorFlow in here.

A part that fails or hangs costs its own figures alone. A part for which no time is left is said to be left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import time
from typing import Any, Callable

_ROOT = pathlib.Path(__file__).parents[2]
OK, FAILED, LEFT_OUT = "ok", "failed", "left out"
_LEAST_SECONDS = 20.0  # for a part of which nothing is known
_FEW_SECONDS = 60.0  # that every part may take, however small its share
_RESERVED_SECONDS = 5.0  # for the report
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Exhausted)\b|error:|Fatal|F\d{4} ).*")


@dataclasses.dataclass
class Part:
    """What became of a part."""

    name: str
    title: str
    state: str = LEFT_OUT
    reason: str = ""  # one line, unless ok
    seconds: float = 0.0
    result: dict[str, Any] = dataclasses.field(default_factory=dict)


class Runner:
    """Runs parts and keeps what they found."""

    def __init__(self, directory: pathlib.Path, minutes: float, say: Callable[[str], None]) -> None:
        self.parts: list[Part] = []
        self._directory, self._say = directory, say
        self._begin = time.monotonic()
        self._total = 60.0 * minutes - _RESERVED_SECONDS

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    @property
    def seconds_left(self) -> float:
        return self._total - self.seconds

    def run(
        self,
        part: Part,
        command: list[str],
        read: Callable[[], dict],
        share: float,
        least_seconds: float = _LEAST_SECONDS,
    ) -> None:
        """Runs the command of a part for at most this share of all the time, if least_seconds are left.

        read returns its result, or as much of it as there is, when the command has ended in any way.
        """
        self.parts.append(part)
        if self.seconds_left < least_seconds:
            part.reason = f"{max(0.0, self.seconds_left):.0f} s left of --minutes, {least_seconds:.0f} s needed"
            self._say(f"{part.title}: left out, {part.reason}")
            return
        limit = min(self.seconds_left, max(_FEW_SECONDS, share * self._total))
        self._say(f"{part.title} ... (at {self.seconds:.0f} s, may take {limit:.0f} s)")
        begin, part.reason = time.monotonic(), "interrupted"
        part.reason = self._run(command, part.name, limit)
        part.seconds = time.monotonic() - begin
        part.result = read()
        part.reason = part.reason or "; ".join(_wrong(part.result))
        part.state = FAILED if part.reason else OK
        self._say(f"  {part.state} after {part.seconds:.1f} s{f': {part.reason}' if part.reason else ''}")

    def log(self, name: str) -> pathlib.Path:
        return self._directory / "logs" / f"{name}.log"

    def _run(self, command: list[str], name: str, limit: float) -> str:
        """Why the command failed, in one line; an empty string if it did not."""
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=_ROOT, start_new_session=True)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"not finished in {limit:.0f} s, its share of --minutes"
            finally:
                _end_group(process)
        return describe_failure(code, self.log(name).read_text(errors="replace")) if code else ""


def describe_failure(code: int, log: str) -> str:
    """One line: the last line of the log that names an error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{how}: {(named or lines or ['nothing was printed'])[-1][:300]}"


def _wrong(result: dict[str, Any]) -> list[str]:
    """The comparisons of a result that are not within what is allowed."""
    return [
        f"{row['name']}: {row.get('error') or '{difference:.2g}, {allowed:.2g} allowed'.format(**row)}"
        for row in result.get("rows", [])
        if not row["ok"]
    ]


def _end_group(process: subprocess.Popen) -> None:
    """Ends what the part has started, also what is stopped."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
