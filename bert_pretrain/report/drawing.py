"""A figure as SVG for a page: Matplotlib draws it, the page's CSS variables colour it.

Text stays text, so that it can be selected and is set in the page's font.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

MAX_POINTS = 1000  # of a line; above it, the least and the greatest of each stretch are drawn
_SIZE = 4.7, 2.7  # inches; 1 pt is about 1 px on a phone of 390 px
# Colours that stand for CSS variables in Matplotlib's output.
_INK, _GRID = "#010101", "#020202"
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--grid)"}
_RC: dict[str, Any] = {
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


def svg(plot: Plot) -> str:
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
        _draw(axes, plot)
        _format(axes, plot)
        output = io.StringIO()
        figure.savefig(output, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(output.getvalue(), plot)


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of the points, the least and the greatest of each stretch, in order."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = -(-len(points) * 2 // MAX_POINTS)
    kept: list[tuple[float, float]] = []
    for begin in range(0, len(points), size):
        stretch = points[begin : begin + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept


def _draw(axes: Any, plot: Plot) -> None:
    for run, x in plot.starts:
        axes.axvline(x, color=_color(run), linewidth=0.8, linestyle=(0, (1, 2)))
    for number, line in enumerate(plot.lines):
        points = thin(line.points)
        marker = "o" if line.style == "evaluation" or len(points) == 1 else None
        axes.plot(
            *zip(*points),
            color=_color(line.run),
            linewidth=1.1 if line.style == "training" else 1.6,
            linestyle=(0, (3, 2)) if line.style == "dashed" else "-",
            marker=marker,
            markersize=3.5,
            clip_on=False,  # a dot on the axis is a whole one
            gid=f"line-{number}",
        )
    if plot.goal:
        goal, color = plot.goal, _color(plot.goal.run)
        axes.axhline(goal.value, color=_INK, linewidth=0.9, linestyle=(0, (5, 3)))
        axes.errorbar([goal.x], [goal.value], xerr=[goal.deviation], color=color, marker="D", markersize=4, capsize=3)


def _format(axes: Any, plot: Plot) -> None:
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


def _color(run: int) -> str:
    return f"#0a0a{run:02x}"


def _for_page(text: str, plot: Plot) -> str:
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
