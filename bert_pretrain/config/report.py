"""The settings of `python -m bert_pretrain.report`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require

MAX_RUNS = 8  # colours that can be told apart


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Report: where the page is written."""

    output: str = option("report.html", "The page, one HTML file that needs no other file.", is_path=True)
    title: Optional[str] = option(None, "Heading of the page; default: the names of the runs.")
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    def check(self, num_runs: int) -> None:
        """ValueError for an invalid setting or number of runs."""
        require(bool(self.output), "--output is empty; give the name of the page, such as report.html")
        require(num_runs > 0, "no run given; usage: python -m bert_pretrain.report RUN_DIR [RUN_DIR ...]")
        require(num_runs <= MAX_RUNS, f"{num_runs} runs given, a page shows at most {MAX_RUNS}; leave some out")
