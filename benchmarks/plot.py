"""The picture of a comparison: examples a second of each worker, a panel for each model and kind of lengths."""

from __future__ import annotations

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

_OURS, _OTHERS, _INK = "#1b6ca8", "#b9c4cd", "#30363b"
_LABELS = {
    "ours": "bert_pretrain",
    "ours_bfloat16": "bert_pretrain, bfloat16",
    "google": "Google",
    "hugging_face": "Hugging Face, eager",
    "hugging_face_masked": "Hugging Face, masked head",
    "hugging_face_compiled": "Hugging Face, torch.compile",
    "intel_extension": "Intel's extension, fast_bert",
}


def draw(report: dict, path: pathlib.Path) -> None:
    """Writes the SVG of a training.json. Bars are medians, whiskers the slowest and the fastest round."""
    panels: dict[str, dict[str, list[dict]]] = {}
    for comparison in report["comparisons"]:
        panel = panels.setdefault(f"{comparison['model']}, {comparison['lengths']} lengths", {})
        for result in comparison["results"]:
            panel.setdefault(result["worker"], []).append(result)
    num_columns = min(2, len(panels))
    num_lines = -(-len(panels) // num_columns)
    figure, grid = pyplot.subplots(num_lines, num_columns, figsize=(5.2 * num_columns, 2.4 * num_lines), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, workers) in zip(grid.flat, panels.items()):
        _panel(axes, title, workers)
    figure.supxlabel("examples a second; whiskers: slowest and fastest round", fontsize=9, color=_INK)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axes: pyplot.Axes, title: str, workers: dict[str, list[dict]]) -> None:
    ours = statistics.median(result["examples_per_second"] for result in next(iter(workers.values())))
    for place, results in enumerate(workers.values()):
        median = statistics.median(result["examples_per_second"] for result in results)
        least = min(result["examples_per_second_least"] for result in results)
        most = max(result["examples_per_second_most"] for result in results)
        axes.barh(place, median, height=0.7, color=_OTHERS if place else _OURS)
        axes.hlines(place, least, most, color=_INK, linewidth=1)
        times = f"  {ours / median:.1f} x slower" if place else ""
        axes.text(most, place, f" {median:.2f}{times}", va="center", fontsize=8, color=_INK)
    axes.set_yticks(range(len(workers)), [_LABELS.get(name, name) for name in workers], fontsize=8)
    axes.set_title(title, fontsize=9, loc="left", color=_INK)
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_quality(report: dict, path: pathlib.Path) -> None:
    """Writes the SVG of a quality.json: accuracy on held-out text against seconds of training, a line for each budget.

    The peer's are those with its best learning rate. A dot is where a run ends.
    """
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8))
    for entries in report["budgets"]:
        for entry, colour in zip(entries[:2], (_OURS, _INK)):
            seconds, accuracies = zip(*((point["seconds"], point["accuracy"]) for point in entry["curve"]))
            label = entry["side"] if entries is report["budgets"][0] else None
            axes.plot(seconds, accuracies, color=colour, linewidth=1.2, label=label)
            axes.plot(seconds[-1], accuracies[-1], "o", color=colour, markersize=4)
            axes.annotate(
                f"{accuracies[-1]:.3f}", (seconds[-1], accuracies[-1]), (3, 4), textcoords="offset points", fontsize=7
            )
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training", fontsize=9, color=_INK)
    axes.set_ylabel("masked-LM accuracy, held-out text", fontsize=9, color=_INK)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))
