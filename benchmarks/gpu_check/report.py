"""The page that the owner of the machine sends back, in Markdown that reads as plain text."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu_check.runner import FAILED, NOT_RUN, OK, Part, describe

CPU_NOTE = "CPU run with small models, not a GPU's figures: what only a GPU shows is marked as not run."
_MOST_LOGS = 3  # of parts that failed; all logs are in the archive


def verdict(parts: list[Part]) -> str:
    """One line: whether anything works, and how many parts are ok, failed, not run."""
    start = parts[0]
    if not start.result.get("is_usable"):
        return f"does not work: {start.reason or 'interrupted'}"
    counts = ", ".join(f"{sum(part.state == state for part in parts)} {state}" for state in (OK, FAILED, NOT_RUN))
    failed = [part.name for part in parts if part.state == FAILED]
    return f"works; of {len(parts)} parts {counts}" + (f"; failed: {', '.join(failed)}" if failed else "")


def render(parts: list[Part], seconds: float, minutes: float, date: str) -> str:
    """The page, at most some 120 lines."""
    start = parts[0].result
    is_gpu = start.get("is_gpu", True)
    device = f"{start.get('num_gpus') or 1} x {start['device']}" if "device" in start else "no device"
    commit = start.get("commit", "unknown").partition(":")[0]
    lines = [
        f"# GPU check: {verdict(parts)}",
        "",
        f"{device}, {date}, code {commit}, {seconds:.0f} s of at most {minutes:g} minutes.",
        *([] if is_gpu else ["", f"**{CPU_NOTE}**"]),
        "",
        *(f"- {describe(part)}" for part in parts),
        *_logs(parts),
        *_machine(start),
        *_speed(parts),
    ]
    for part in parts:
        table = part.result.get("table")
        if table:
            lines += [*_heading(table["title"]), *draw_table(table["columns"], table["rows"])]
    return "\n".join(lines) + "\n"


def _heading(title: str) -> list[str]:
    """A title: what stands after a colon is a line of its own."""
    title, _, more = title.partition(": ")
    return ["", f"## {title[0].upper()}{title[1:]}", "", *([f"{more[0].upper()}{more[1:]}.", ""] if more else [])]


def _logs(parts: list[Part]) -> Iterator[str]:
    logs = [part for part in parts if part.log]
    if not logs:
        return
    yield from [*_heading("how the logs of failed parts end"), "```"]
    for part in logs[:_MOST_LOGS]:
        yield from [f"[{part.name}]", *part.log]
    yield "```"
    if logs[_MOST_LOGS:]:
        yield f"The archive has those of {', '.join(part.name for part in logs[_MOST_LOGS:])}."


def _machine(start: dict[str, Any]) -> Iterator[str]:
    if "machine" not in start:
        return
    yield from _heading("machine")
    yield f"- {start['machine']}"
    for tool, output in start["tools"].items():
        lines = collections.Counter(output.splitlines()[:16])  # one for each GPU
        yield from (f"- {tool}: {number} x {line}" for line, number in list(lines.items())[:6])
    versions = {**start["versions"], **start.get("libraries", {})}
    yield f"- {', '.join(f'{name} {value}' for name, value in versions.items())}"
    if start["environment"]:
        yield f"- {', '.join(f'{name}={value}' for name, value in start['environment'].items())}"


def _speed(parts: list[Part]) -> Iterator[str]:
    columns = ["speed of", "rows/s", "examples/s", "update s", "utilization", "GPU GiB", "start s"]
    rows = []
    for part in parts:
        found = part.result
        if "rows_per_second" in found:
            memory = found["memory_bytes"] / 2**30 if found["memory_bytes"] else "not run"
            utilization = "unknown" if found["utilization"] is None else f"{found['utilization']:.1%}"
            name = part.name.replace("speed of ", "")
            speed = found["rows_per_second"], found["examples_per_second"], found["update_seconds"]
            rows.append([name, *speed, utilization, memory, found["start_seconds"]])
    if rows:
        yield from [*_heading("speed, with Wikipedia's lengths"), *draw_table(columns, rows)]


def draw_table(columns: list[str], rows: list[list[Any]]) -> list[str]:
    """The lines of a Markdown table whose columns are aligned."""
    cells = [columns, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in cells]
    lines.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")
