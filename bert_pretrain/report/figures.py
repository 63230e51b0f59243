"""The figures of a report: which values of metrics.jsonl they show, and which runs have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from bert_pretrain.config.training import MLPERF_TARGET
from bert_pretrain.mlperf import rules
from bert_pretrain.report import drawing
from bert_pretrain.report.run_folder import EVALUATIONS, Run, is_number

TRAINING = ("train",)


class Curve(NamedTuple):
    """One value of metrics.jsonl in a figure."""

    label: str  # empty for the only one of a figure
    kinds: tuple[str, ...]
    name: str
    style: str


class Kind(NamedTuple):
    """A figure before it has data."""

    name: str
    title: str
    curves: tuple[Curve, ...]
    is_log: bool = False
    unit: str = ""
    text: str = "{:.4g}"  # of the latest value
    divisor: float = 1.0  # of the values


class Latest(NamedTuple):
    """The last value of a curve, as text."""

    run: int
    label: str
    style: str
    value: str


class Figure(NamedTuple):
    """A drawn figure."""

    name: str
    title: str
    svg: str
    latest: list[Latest]
    num_lines: int
    remark: str


def _both(name: str) -> tuple[Curve, ...]:
    return (Curve("training", TRAINING, name, "training"), Curve("evaluation", EVALUATIONS, name, "evaluation"))


def _one(name: str) -> tuple[Curve, ...]:
    return (Curve("", TRAINING, name, "training"),)


GROUPS: dict[str, tuple[Kind, ...]] = {
    "Learning": (
        Kind("mlm-loss", "Masked-LM loss", _both("masked_lm_loss")),
        Kind("mlm-accuracy", "Masked-LM accuracy", _both("masked_lm_accuracy"), unit="%", text="{:.2%}"),
        Kind("nsp-loss", "Next-sentence loss", _both("next_sentence_loss")),
        Kind("nsp-accuracy", "Next-sentence accuracy", _both("next_sentence_accuracy"), unit="%", text="{:.2%}"),
    ),
    "Optimization": (
        Kind("loss", "Loss of an update (sum of both)", _one("loss")),
        Kind("learning-rate", "Learning rate", _one("learning_rate")),
        Kind("gradient-norm", "Gradient norm before clipping", _one("gradient_norm"), is_log=True),
        Kind("loss-scale", "Loss scale", _one("loss_scale"), is_log=True, text="{:g}"),
    ),
    "Speed and memory": (
        Kind("examples", "Examples per second", _one("examples_per_second")),
        Kind("tokens", "Tokens per second, without padding", _one("tokens_per_second"), text="{:,.0f}"),
        Kind(
            "step-time",
            "Seconds per update",
            (
                Curve("median", TRAINING, "step_seconds_median", "training"),
                Curve("95th percentile", TRAINING, "step_seconds_p95", "dashed"),
            ),
            text="{:.3g} s",
        ),
        Kind("padding", "Padding, share of computed tokens", _one("padding_share"), unit="%", text="{:.1%}"),
        Kind("input-wait", "Waiting for data, share of time", _one("input_wait_share"), unit="%", text="{:.1%}"),
        Kind("memory", "Memory of rank 0 at most, GiB", _one("peak_memory_bytes"), False, "GiB", "{:.3g} GiB", 2.0**30),
    ),
}


def draw(runs: Sequence[Run]) -> tuple[dict[str, list[Figure]], list[str]]:
    """The figures by group, and sentences on those that show nothing and are left out."""
    axis = _Axis(runs)
    groups: dict[str, list[Figure]] = {}
    empty, zero = [], []
    for title, kinds in GROUPS.items():
        groups[title] = []
        for kind in kinds:
            curves = list(_curves(kind, runs, axis))
            values = {y for _, line in curves for _, y in line.points}
            if kind.name == "loss-scale" and values <= {1.0}:
                continue  # there is none
            if values - {0.0}:
                groups[title].append(_figure(kind, runs, axis, curves))
            else:
                (zero if values else empty).append(kind.title)
    remarks = [f"Not drawn, as no run has values: {'; '.join(empty)}."] if empty else []
    return groups, remarks + ([f"Not drawn, as all values are 0: {'; '.join(zero)}."] if zero else [])


class _Axis:
    """The horizontal axis: updates, or training examples where updates cannot be compared."""

    def __init__(self, runs: Sequence[Run]) -> None:
        sizes = [run.examples_per_update() for run in runs]
        known = {size for size in sizes if size}
        is_mlperf = any(run.setting("mlperf", "mlperf") is True for run in runs)
        in_examples = bool(known) and None not in sizes and (len(known) > 1 or is_mlperf)
        self.label = "training examples" if in_examples else "updates"
        self.scale = [size if in_examples and size else 1.0 for size in sizes]


def _curves(kind: Kind, runs: Sequence[Run], axis: _Axis) -> Iterator[tuple[Curve, drawing.Line]]:
    """The curves that have values, those of a run together."""
    for number, run in enumerate(runs):
        for curve in kind.curves:
            points = run.curve(curve.kinds, curve.name)
            points = [(x * axis.scale[number], y / kind.divisor) for x, y in points if y > 0 or not kind.is_log]
            if points:
                yield curve, drawing.Line(number, curve.style, points)


def _figure(kind: Kind, runs: Sequence[Run], axis: _Axis, curves: Sequence[tuple[Curve, drawing.Line]]) -> Figure:
    lines = [line for _, line in curves]
    latest = [Latest(line.run, curve.label, line.style, kind.text.format(line.points[-1][1])) for curve, line in curves]
    goal, remark = _goal(runs, axis) if kind.name == "mlm-accuracy" else (None, "")
    starts = [(line.run, x) for line in lines for x in _starts(runs[line.run], axis.scale[line.run])]
    plot = drawing.Plot(kind.name, kind.title, axis.label, lines, starts, goal, kind.is_log, kind.unit)
    seen = {line.run for line in lines}
    without = [run.name for number, run in enumerate(runs) if number not in seen]
    remark += f"No values: {', '.join(without)}." if without else ""
    return Figure(kind.name, kind.title, drawing.svg(plot), latest, len(lines), remark)


def _starts(run: Run, scale: float) -> list[float]:
    """Where the run was continued after an interruption."""
    starts = run.description.get("starts")
    found = [start.get("update") for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
    return sorted({update * scale for update in found if is_number(update) and update > 0})


def _goal(runs: Sequence[Run], axis: _Axis) -> tuple[Optional[drawing.Goal], str]:
    """MLPerf's target and where its reference reached it, for the first run with --mlperf; and a sentence on it."""
    for number, run in enumerate(runs):
        batch = run.examples_per_update()
        if run.setting("mlperf", "mlperf") is not True or batch is None:
            continue
        library = rules.installed_library()
        if library is None:
            return None, "MLPerf's reference is not drawn: bash init_tf.sh --mlperf installs its data. "
        needs = rules.reference_convergence(library, round(batch))
        scale = axis.scale[number] / batch  # 1 on an axis of examples
        goal = drawing.Goal(number, MLPERF_TARGET, needs.mean * scale, needs.deviation * scale)
        return goal, (
            f"Diamond: MLPerf's reference has {MLPERF_TARGET:.0%} after {needs.mean:,.0f} \N{PLUS-MINUS SIGN} "
            f"{needs.deviation:,.0f} examples at batch {needs.batch:,} (v{rules.RULESET}). "
        )
    return None, ""
