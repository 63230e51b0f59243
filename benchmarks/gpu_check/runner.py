"""Runs the parts of the check in processes of their own, within the time limit. No TensorFlow in here.

A part that fails or hangs costs its own figures alone. A part for which no time is left is said to be not run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any, Callable

import psutil

CHILD = [sys.executable, "-m", "benchmarks.gpu_check.child"]  # before the function, the result and the arguments
_ROOT = pathlib.Path(__file__).parents[2]
OK, FAILED, NOT_RUN = "ok", "failed", "not run"
TOO_LARGE = "the device's memory is too small for it"  # the reason of a part that is not run
_LEAST_SECONDS = 20.0  # without as many left, a process is not started
_RESERVED_SECONDS = 5.0  # for the report
_LOG_LINES = 5  # of a process that failed
_ERROR = re.compile(r"^(?:[\w.]*(?:Error|Exception|Exhausted)\b|error:|Fatal|F\d{4} ).*")
_OUT_OF_MEMORY = re.compile(r"ResourceExhausted|\bOOM\b|out of memory|OUT_OF_MEMORY", re.IGNORECASE)


@dataclasses.dataclass
class Part:
    """What became of a part."""

    name: str
    state: str = NOT_RUN
    reason: str = ""  # one line, where it is not ok
    seconds: float = 0.0
    result: dict[str, Any] = dataclasses.field(default_factory=dict)  # what child.Report was told
    log: list[str] = dataclasses.field(default_factory=list)  # the last lines of a process that failed


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

    def run(
        self, names: list[str], function: str, limit: float, may_be_too_large: bool = False, **arguments: Any
    ) -> list[Part]:
        """Parts that one process does one after the other: child.PARTS[function] with these arguments.

        limit: seconds for all of them. What is left of the whole check's time limits them, too. may_be_too_large: a
        device whose memory is too small for a part fails nothing.
        """
        parts = [Part(name) for name in names]
        self.parts += parts
        limit = min(limit, self._total - self.seconds)
        if limit < _LEAST_SECONDS:
            self._end(parts, f"{max(0.0, limit):.0f} s left of --minutes")
            return parts
        self._say(f"{', '.join(names)} ... (at {self.seconds:.0f} s, may take {limit:.0f} s)")
        result = self._directory / f"{names[0].replace(' ', '-')}.json"
        result.unlink(missing_ok=True)
        command = [*CHILD, function, str(result), json.dumps(arguments)]
        begin, reason = time.monotonic(), "interrupted"
        try:
            reason = self._wait(command, names[0], limit)
        finally:
            self._take(parts, result, reason, time.monotonic() - begin, may_be_too_large)
        return parts

    def add(self, part: Part) -> None:
        """A part that needs no process."""
        self.parts.append(part)
        self._end([part], "")

    def _take(
        self, parts: list[Part], result: pathlib.Path, reason: str, seconds: float, may_be_too_large: bool
    ) -> None:
        found = json.loads(result.read_text()) if result.exists() else {}
        undone = [part for part in parts if not found.get(part.name, {}).get("is_done")]
        for part in parts:
            part.result = found.get(part.name, {})
            part.seconds = part.result.get("seconds", 0.0)
            part.reason = "; ".join(part.result.get("wrong", []))
            part.state = FAILED if part.reason or part in undone else OK
            if part.state == OK and part.result.get("not_run"):
                part.state, part.reason = NOT_RUN, part.result["not_run"]
        failed = undone[0] if undone else parts[-1] if reason else None
        if failed:
            failed.state = FAILED
            failed.reason = "; ".join(filter(None, [failed.reason, reason or "it left no result"]))
            failed.log = self._last_lines(parts[0].name)
            log = self._log(parts[0].name).read_text(errors="replace")
            if may_be_too_large and _OUT_OF_MEMORY.search(log):
                failed.log = []
                for part in undone:
                    part.state, part.reason = NOT_RUN, TOO_LARGE
        if parts[0].result.get("is_usable") is False:  # TensorFlow's warnings tell more
            parts[0].log = self._last_lines(parts[0].name)
        # Python's start is the first part's; a part that failed has the time up to the end.
        (undone or parts)[0].seconds += seconds - sum(part.seconds for part in parts)
        for part in undone[1:]:
            part.reason = part.reason or "not reached"
        self._end(parts, "")

    def _end(self, parts: list[Part], reason: str) -> None:
        for part in parts:
            part.reason = part.reason or reason
            self._say("  " + describe(part))

    def _log(self, name: str) -> pathlib.Path:
        return self._directory / "logs" / f"{name.replace(' ', '-')}.log"

    def _last_lines(self, name: str) -> list[str]:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return [line.rstrip()[:200] for line in lines if line.strip()][-_LOG_LINES:]

    def _wait(self, command: list[str], name: str, limit: float) -> str:
        """Why the command failed, in one line; an empty string if it did not."""
        self._log(name).parent.mkdir(parents=True, exist_ok=True)
        with self._log(name).open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=_ROOT, start_new_session=True,
                env={"TF_CPP_MIN_LOG_LEVEL": "1", **os.environ},
            )  # fmt: skip
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"not finished in {limit:.0f} s"
            finally:
                _end_all(process)
        return describe_failure(code, self._log(name).read_text(errors="replace")) if code else ""


def describe(part: Part) -> str:
    """One line: the part's state, its name and seconds, its figures, and why it is not ok."""
    return f"{part.state:7} {part.name} ({part.seconds:.0f} s): " + "; ".join(
        filter(None, [part.reason, part.result.get("figures")])
    )


def describe_failure(code: int, log: str) -> str:
    """One line: the last line of the log that names an error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{how}: {(named or lines or ['nothing was printed'])[-1][:300]}"


def _end_all(process: subprocess.Popen) -> None:
    """Ends what the part has started, also what is stopped, and what mpirun put into groups of its own."""
    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
