"""The report that the owner of the machine sends back: gpu_check.json, and the same as gpu_check.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

CPU_NOTE = "**CPU run, not a GPU's figures.**"
_HEAD = (
    "Differences are relative and Euclidean, those of logits are the largest absolute ones. What is allowed follows "
    "from the unit roundoff of a dtype (benchmarks/gpu_check/comparison.py)."
)
_SPEED = (
    "Achieved: FLOP/s that the model needs for real tokens, forward and backward. Products: FLOP/s of large square "
    "matrix products of the same dtype, measured in the same process around the updates. Utilization: the one over the "
    "other. float32 is TF32 on GPUs that have it, in both."
)


def render(report: dict[str, Any]) -> str:
    """The report as Markdown. A run without a GPU says so under every heading."""
    note = "" if report["is_gpu"] else CPU_NOTE
    pages = [_summary(report), *_machine(report), *_comparisons(report), *_compilations(report), *_speed(report)]
    return (
        "\n\n".join(f"{heading}\n\n{note}\n\n{body}" if note else f"{heading}\n\n{body}" for heading, body in pages)
        + "\n"
    )


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def verdict(report: dict[str, Any]) -> str:
    """One line: how many parts are ok, failed, left out."""
    states = [part["state"] for part in report["parts"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} parts: {counts}"


def _summary(report: dict[str, Any]) -> tuple[str, str]:
    parts = [[part["title"], part["state"], f"{part['seconds']:.1f}", part["reason"]] for part in report["parts"]]
    body = [
        f"{report['date']}, code {report['commit']}. {report['seconds']:.0f} s of at most {report['minutes']:g} "
        f"minutes; {verdict(report)}.",
        f"Sizes: {report['sizes']}.",
        table(["part", "state", "seconds", "reason"], parts),
    ]
    return f"# GPU check: {report['device']}", "\n\n".join(body)


def _machine(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = _result(report, "machine")
    if not found:
        return
    rows = [[name, value] for name, value in found.items() if not isinstance(value, (dict, list))]
    rows += [["GPU", ", ".join(f"{k}: {v}" for k, v in gpu.items())] for gpu in found.get("gpus", [])]
    rows += [["products in", ", ".join(found.get("dtypes", []))]]
    rows += [[f"not in {dtype}", reason] for dtype, reason in found.get("not_dtypes", {}).items()]
    rows += [[name, value] for name, value in found["versions"].items()]
    rows += [[name, value] for name, value in found["environment"].items()]
    tools = [f"`{tool}`:\n\n```\n{output}\n```" for tool, output in found["tools"].items()]
    yield "## Machine", "\n\n".join([table(["", ""], rows), *tools])


def _comparisons(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, heading in (("logits", "## Logits beside the CPU's"), ("updates", "## One update beside the CPU's")):
        rows = [
            [row["name"], row["difference"], row["allowed"], "yes" if row["ok"] else "**no**", row["where"]]
            if "difference" in row
            else [row["name"], "", "", "**no**", row["error"]]
            for row in _result(report, name).get("rows", [])
        ]
        if rows:
            yield heading, f"{_HEAD}\n\n{table(['what', 'difference', 'allowed', 'within', 'where'], rows)}"


def _compilations(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = _result(report, "compilations")
    if found:
        rows = [[name, len(counts), ", ".join(map(str, counts))] for name, counts in found["kernels"].items()]
        total = sum(sum(counts) for counts in found["kernels"].values())
        head = (
            f"{total} compilations in {found['updates']} updates of six examples, Wikipedia's lengths; at most "
            f"{found['most']} of a program whose shapes depend on the data."
        )
        yield "## XLA's compilations", f"{head}\n\n{table(['kernel', 'programs', 'compilations of each'], rows)}"


def _speed(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    columns = [
        *(
            "model",
            "lengths",
            "dtype",
            "examples",
            "examples/s",
            "least - most",
            "achieved TFLOP/s",
            "products TFLOP/s",
        ),
        *("utilization", "update s", "mean loss", "GPU GiB", "host GiB", "start s"),
    ]
    rows = [
        _speed_row(part["result"], comparison)
        for part in report["parts"]
        if part["name"].startswith("speed-")
        for comparison in part["result"].get("comparisons", [])
    ]
    if rows:
        yield "## Speed", f"{_SPEED}\n\n{table(columns, rows)}"


def _speed_row(result: dict[str, Any], comparison: dict[str, Any]) -> list[Any]:
    (found,) = comparison["results"]
    products = statistics.median(turn["matmul_flops"] for turn in found["rounds"])
    device_bytes = found["device_memory_bytes"]
    return [
        comparison["model"],
        comparison["lengths"],
        found["worker"].replace("ours_", ""),
        result["settings"]["batch_size"],
        found["examples_per_second"],
        f"{found['examples_per_second_least']:.4g} - {found['examples_per_second_most']:.4g}",
        found["utilization"] * products / 1e12,
        products / 1e12,
        found["utilization"],
        found["step_seconds_median"],
        found["mean_loss"],
        device_bytes / 2**30 if device_bytes else "",
        found["peak_memory_bytes"] / 2**30,
        found["startup_seconds"] + sum(found["warm_up_seconds"]),
    ]


def _result(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next((part["result"] for part in report["parts"] if part["name"] == name), {})


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")
