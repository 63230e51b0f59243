"""How long the records are: bars of characters, and a picture."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_pretrain.system.files import atomic_write

_NUM_BINS = 16
_BAR_WIDTH = 50  # characters of the longest bar
_FORMATS = (".png", ".svg", ".pdf")


def bars(length_counts: np.ndarray, block: str) -> list[str]:
    """A line for each range of lengths: '  97-112   34% ' and a bar of `block` characters.

    length_counts [S+1] is the number of records of each length.
    """
    edges, shares = _bins(length_counts)
    labels = [f"{low + 1}-{high}" if low + 1 < high else str(high) for low, high in zip(edges, edges[1:])]
    width = max(map(len, labels))
    largest = max(shares)
    return [
        f"  {label:>{width}} {share:6.1%} {block * round(_BAR_WIDTH * share / largest)}".rstrip()
        for label, share in zip(labels, shares)
    ]


def _bins(length_counts: np.ndarray) -> tuple[list[int], list[float]]:
    """Edges of the ranges (low, high], and the share of the records in each."""
    capacity = len(length_counts) - 1
    edges = np.unique(np.linspace(0, capacity, min(_NUM_BINS, capacity) + 1).astype(int))
    counts = np.diff(np.cumsum(length_counts)[edges])
    counts[0] += length_counts[0]  # a record without tokens is a fault, and is counted nevertheless
    return edges.tolist(), (counts / length_counts.sum()).tolist()


def require_drawing(path: str) -> None:
    """ValueError if a picture cannot be drawn at `path`; asked before the work."""
    if not path.lower().endswith(_FORMATS):
        raise ValueError(f"--histogram: {path} must end in {', '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--histogram needs matplotlib, which is not installed; bash init_tf.sh --plot installs it")
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise ValueError(f"--histogram: {path} cannot be written; give a file in a directory that exists")


def draw(length_counts: np.ndarray, path: str) -> None:
    """Writes the picture, complete or not at all. ValueError if it cannot be written."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its first import tells that it makes a cache of fonts
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    _fill(axes, length_counts)
    figure.tight_layout()
    try:
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format=os.path.splitext(path)[1][1:].lower())
    except OSError as error:
        raise ValueError(f"--histogram: {path} cannot be written ({error.strerror})") from None
    finally:
        pyplot.close(figure)


def _fill(axes: Any, length_counts: np.ndarray) -> None:
    lengths: Sequence[int] = range(len(length_counts))
    axes.bar(lengths, length_counts / length_counts.sum(), width=1.0, color="#1b6ca8")
    axes.set_xlabel("tokens in a record, without padding")
    axes.set_ylabel("share of the records")
    axes.set_xlim(0, len(length_counts))
    axes.set_title(f"{int(length_counts.sum())} records of at most {len(length_counts) - 1} tokens", loc="left")
