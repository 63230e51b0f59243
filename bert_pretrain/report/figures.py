"""The figures of a report: which values of metrics.jsonl they show, which runs have them, and the figures as SVG.

Matplotlib draws a figure, the CSS variables of the page colour it. Text stays text, so that it can be selected and is
set in the page's font.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from bert_pretrain.config.training import MLPERF_TARGET
from bert_pretrain.mlperf import rules
from bert_pretrain.report.run_folder import EVALUATION_KINDS, TRAINING_KINDS, ReportedRun, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

MAX_POINTS = 1000  # of a line; above it, the least and the greatest of each stretch are drawn
_SIZE = 4.7, 2.7  # inches; 1 pt is about 1 px on a phone of 390 px
# Colours that stand for CSS variables in Matplotlib's output.
_INK, _GRID = "#010101", "#020202"
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--grid)"}
_RC: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


class Curve(NamedTuple):
    """One value of metrics.jsonl in a figure."""

    label: str  # empty for the only one of a figure
    kinds: tuple[str, ...]
    name: str
    style: str


class FigureKind(NamedTuple):
    """A figure before it has data."""

    name: str
    title: str
    curves: tuple[Curve, ...]
    is_log: bool = False
    unit: str = ""
    text: str = "{:.4g}"  # of the latest value
    divisor: float = 1.0  # of the values


class LatestValue(NamedTuple):
    """The last value of a curve, as text."""

    run: int
    label: str
    style: str
    value: str


class DrawnFigure(NamedTuple):
    """A drawn figure."""

    name: str
    title: str
    svg: str
    latest: list[LatestValue]
    num_lines: int
    remark: str


def _both(name: str) -> tuple[Curve, ...]:
    return (
        Curve("training", TRAINING_KINDS, name, "training"),
        Curve("evaluation", EVALUATION_KINDS, name, "evaluation"),
    )


def _training(name: str) -> tuple[Curve, ...]:
    return (Curve("", TRAINING_KINDS, name, "training"),)


FIGURES: dict[str, tuple[FigureKind, ...]] = {
    "Learning": (
        FigureKind("mlm-loss", "Masked-LM loss", _both("masked_lm_loss")),
        FigureKind("mlm-accuracy", "Masked-LM accuracy", _both("masked_lm_accuracy"), unit="%", text="{:.2%}"),
        FigureKind("nsp-loss", "Next-sentence loss", _both("next_sentence_loss")),
        FigureKind("nsp-accuracy", "Next-sentence accuracy", _both("next_sentence_accuracy"), unit="%", text="{:.2%}"),
    ),
    "Optimization": (
        FigureKind("loss", "Loss of an update (sum of both)", _training("loss")),
        FigureKind("learning-rate", "Learning rate", _training("learning_rate")),
        FigureKind("gradient-norm", "Gradient norm before clipping", _training("gradient_norm"), is_log=True),
        FigureKind("loss-scale", "Loss scale", _training("loss_scale"), is_log=True, text="{:g}"),
    ),
    "Speed and memory": (
        FigureKind("examples", "Examples per second", _training("examples_per_second")),
        FigureKind("tokens", "Tokens per second, without padding", _training("tokens_per_second"), text="{:,.0f}"),
        FigureKind(
            "step-time",
            "Seconds per update",
            (
                Curve("median", TRAINING_KINDS, "step_seconds_median", "training"),
                Curve("95th percentile", TRAINING_KINDS, "step_seconds_p95", "dashed"),
            ),
            text="{:.3g} s",
        ),
        FigureKind("padding", "Padding, share of computed tokens", _training("padding_share"), unit="%", text="{:.1%}"),
        FigureKind(
            "input-wait", "Waiting for data, share of time", _training("input_wait_share"), unit="%", text="{:.1%}"
        ),
        FigureKind(
            "memory",
            "Memory of rank 0 at most, GiB",
            _training("peak_memory_bytes"),
            False,
            "GiB",
            "{:.3g} GiB",
            2.0**30,
        ),
    ),
}


def draw_figures(runs: Sequence[ReportedRun]) -> tuple[dict[str, list[DrawnFigure]], list[str]]:
    """The figures by group, and sentences on those that show nothing and are left out."""
    axis = _Axis(runs)
    groups: dict[str, list[DrawnFigure]] = {}
    empty, zero = [], []
    for title, kinds in FIGURES.items():
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

    def __init__(self, runs: Sequence[ReportedRun]) -> None:
        sizes = [run.examples_per_update() for run in runs]
        known = {size for size in sizes if size}
        is_mlperf = any(run.setting("mlperf", "mlperf") is True for run in runs)
        in_examples = bool(known) and None not in sizes and (len(known) > 1 or is_mlperf)
        self.label = "training examples" if in_examples else "updates"
        self.in_examples = in_examples

    def place(self, run: ReportedRun, update: float) -> float:
        """Where an update of a run stands."""
        return run.examples_at(update) if self.in_examples else update


def _curves(kind: FigureKind, runs: Sequence[ReportedRun], axis: _Axis) -> Iterator[tuple[Curve, Line]]:
    """The curves that have values, those of a run together."""
    for number, run in enumerate(runs):
        for curve in kind.curves:
            points = run.curve(curve.kinds, curve.name)
            points = [(axis.place(run, x), y / kind.divisor) for x, y in points if y > 0 or not kind.is_log]
            if points:
                yield curve, Line(number, curve.style, points)


def _figure(
    kind: FigureKind, runs: Sequence[ReportedRun], axis: _Axis, curves: Sequence[tuple[Curve, Line]]
) -> DrawnFigure:
    lines = [line for _, line in curves]
    latest = [
        LatestValue(line.run, curve.label, line.style, kind.text.format(line.points[-1][1])) for curve, line in curves
    ]
    goal, remark = _mlperf_goal(runs, axis) if kind.name == "mlm-accuracy" else (None, "")
    starts = [(line.run, x) for line in lines for x in _continued_at(runs[line.run], axis)]
    plot = Plot(kind.name, kind.title, axis.label, lines, starts, goal, kind.is_log, kind.unit)
    seen = {line.run for line in lines}
    without = [run.name for number, run in enumerate(runs) if number not in seen]
    remark += f"No values: {', '.join(without)}." if without else ""
    return DrawnFigure(kind.name, kind.title, draw_svg(plot), latest, len(lines), remark)


def _continued_at(run: ReportedRun, axis: _Axis) -> list[float]:
    """Where the run was continued after an interruption."""
    starts = run.description.get("starts")
    found = [start.get("update") for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
    return sorted({axis.place(run, update) for update in found if is_number(update) and update > 0})


def _mlperf_goal(runs: Sequence[ReportedRun], axis: _Axis) -> tuple[Optional[Goal], str]:
    """MLPerf's target and where its reference reached it, for the first run with --mlperf; and a sentence on it."""
    for number, run in enumerate(runs):
        batch = run.examples_per_update()
        if run.setting("mlperf", "mlperf") is not True or batch is None:
            continue
        library = rules.installed_library()
        if library is None:
            return None, "MLPerf's reference is not drawn: bash init_tf.sh --mlperf installs its data. "
        needs = rules.reference_convergence(library, round(batch))
        scale = 1.0 if axis.in_examples else 1.0 / batch
        goal = Goal(number, MLPERF_TARGET, needs.mean * scale, needs.deviation * scale)
        return goal, (
            f"Diamond: MLPerf's reference has {MLPERF_TARGET:.0%} after {needs.mean:,.0f} \N{PLUS-MINUS SIGN} "
            f"{needs.deviation:,.0f} examples at batch {needs.batch:,} (v{rules.RULESET}). "
        )
    return None, ""


class Line(NamedTuple):
    """One curve."""

    run: int  # number of the run, which is its colour
    style: str  # "training", "evaluation", or "dashed"
    points: Sequence[tuple[float, float]]


class Goal(NamedTuple):
    """A value to reach, and where another system reached it."""

    run: int
    value: float
    x: float
    deviation: float  # of x


class Plot(NamedTuple):
    """What a figure shows."""

    name: str  # prefix of all ids in the SVG
    title: str  # for screen readers
    x_label: str
    lines: list[Line]
    starts: Sequence[tuple[int, float]] = ()  # (run, x) of the starts that continued the run
    goal: Optional[Goal] = None
    is_log: bool = False
    unit: str = ""  # "%": values are shares; "GiB": the axis begins at zero


def draw_svg(plot: Plot) -> str:
    """An <svg> element without a size of its own. ValueError if Matplotlib is not installed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its first import tells that it makes a cache of fonts
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("a report needs Matplotlib, which is not installed; run: bash init_tf.sh --plot") from None
    with matplotlib.rc_context({**_RC, "svg.hashsalt": plot.name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _draw_lines(axes, plot)
        _format_axes(axes, plot)
        output = io.StringIO()
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _svg_for_page(output.getvalue(), plot)


def thin_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of the points, the least and the greatest of each stretch, in order."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = -(-len(points) * 2 // MAX_POINTS)
    kept: list[tuple[float, float]] = []
    for begin in range(0, len(points), size):
        stretch = points[begin : begin + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _draw_lines(axes: Axes, plot: Plot) -> None:
    for run, x in plot.starts:
        axes.axvline(x, color=_run_color(run), linewidth=0.8, linestyle=(0, (1, 2)))
    for number, line in enumerate(plot.lines):
        points = thin_points(line.points)
        marker = "o" if line.style == "evaluation" or len(points) == 1 else None
        axes.plot(
            *zip(*points),
            color=_run_color(line.run),
            linewidth=1.1 if line.style == "training" else 1.6,
            linestyle=(0, (3, 2)) if line.style == "dashed" else "-",
            marker=marker,
            markersize=3.5,
            clip_on=False,  # a dot on the axis is a whole one
            gid=f"line-{number}",
        )
    if plot.goal:
        goal, color = plot.goal, _run_color(plot.goal.run)
        axes.axhline(goal.value, color=_INK, linewidth=0.9, linestyle=(0, (5, 3)))
        axes.errorbar([goal.x], [goal.value], xerr=[goal.deviation], color=color, marker="D", markersize=4, capsize=3)


def _format_axes(axes: Axes, plot: Plot) -> None:
    from matplotlib import ticker

    axes.set_xlabel(plot.x_label)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep="\N{THIN SPACE}"))
    if plot.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    elif plot.unit == "%":
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    if not plot.is_log:
        values = [y for line in plot.lines for _, y in line.points]
        is_constant = min(values) == max(values)  # the axis would magnify nothing
        if min(values) >= 0 and (is_constant or plot.unit == "GiB" or min(values) <= 0.5 * max(values)):
            axes.set_ylim(0, 1.25 * max(values) if is_constant else None)


def _run_color(run: int) -> str:
    return f"#0a0a{run:02x}"


def _svg_for_page(text: str, plot: Plot) -> str:
    """The <svg> element with ids of this figure alone and the page's colours."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{plot.name}-', text)
    text = re.sub(r"url\(#", f"url(#{plot.name}-", text)
    text = re.sub(r'href="#', f'href="#{plot.name}-', text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = re.sub(r"#0a0a([0-9a-f]{2})", lambda found: f"var(--run-{int(found.group(1), 16)})", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{plot.title}"', 1).strip()
