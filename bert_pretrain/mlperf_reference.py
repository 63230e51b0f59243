"""Samples that MLPerf's reference implementation needs, by batch size, read from the installed mlperf_logging.

v5.0 is the last round of MLPerf Training with BERT.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.config.mlperf import TARGET

RULESET = "5.0.0"


class Reference(NamedTuple):
    """Samples that the reference implementation needs to TARGET, interpolated between the batches of its runs."""

    batch: int  # examples of an update
    mean: float
    deviation: float

    def standing(self, samples: int, accuracy: Optional[float]) -> str:
        """One line: where a run stands that has `accuracy` after `samples` training samples."""
        needs = f"the reference needs {self.mean:,.0f} +- {self.deviation:,.0f} at batch {self.batch:,}"
        if (accuracy or 0.0) < TARGET:
            return f"MLPerf: {samples:,} samples, {samples / self.mean:.0%} of the way to {TARGET}; {needs}"
        deviations = (samples - self.mean) / self.deviation
        return f"MLPerf: {TARGET} reached after {samples:,} samples; {needs}, {deviations:+.1f} standard deviations"


def installed_library() -> Optional[Path]:
    """The folder of mlperf_logging, None where it is not installed."""
    found = importlib.util.find_spec("mlperf_logging")
    return Path(found.submodule_search_locations[0]) if found else None


def reference(folder: Path, batch: int) -> Reference:
    """The reference's convergence at a batch size; beyond the smallest and the largest batch, theirs.

    `folder` is mlperf_logging's. As its rcp_checker does, the mean leaves out the fastest and the slowest run.
    """
    points = json.loads((folder / "rcp_checker" / f"training_{RULESET}" / "rcps_bert.json").read_text(encoding="utf-8"))
    runs = {point["BS"]: sorted(point["Epochs to converge"]) for point in points.values()}
    sizes = sorted(runs)
    nearest = min(max(batch, sizes[0]), sizes[-1])
    mean = np.interp(nearest, sizes, [np.mean(runs[size][1:-1]) for size in sizes])
    return Reference(nearest, float(mean), float(np.interp(nearest, sizes, [np.std(runs[size]) for size in sizes])))
