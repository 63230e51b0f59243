"""The page: figures and tables in the template page.html, with the styles of page.css."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bert_pretrain import __version__
from bert_pretrain.report import figures, tables
from bert_pretrain.report.run_folder import Run, is_number


class Summary(NamedTuple):
    """What the head of the page says about a run."""

    name: str
    folder: str
    state: str
    accuracy: str
    updates: str
    share: float  # of the updates, 0 to 1
    speed: str
    last_line: str
    model: str
    command: str
    starts: list[tables.Start]
    notes: list[str]


def render(runs: Sequence[Run], title: Optional[str] = None) -> str:
    """The HTML of the page. ValueError if Jinja2 or Matplotlib is not installed."""
    try:
        import jinja2
    except ImportError:
        raise ValueError("a report needs Jinja2, which is not installed; run: bash init_tf.sh --plot") from None
    folder = Path(__file__).parent
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    groups, remarks = figures.draw(runs)
    return template.render(
        css=(folder / "page.css").read_text(encoding="utf-8"),
        title=title or (" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs"),
        time=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        runs=[_summary(run) for run in runs],
        groups=groups,
        remarks=remarks,
        results=tables.results(runs),
        settings=tables.settings(runs),
        details=tables.details(runs),
    )


def _summary(run: Run) -> Summary:
    total = run.setting("optim", "num_train_steps")
    is_known = is_number(total) and total > 0
    return Summary(
        run.name,
        run.folder,
        tables.end(run),
        tables.evaluated(run),
        f"{run.updates():,} of {total:,}" if is_known else f"{run.updates():,}",
        min(1.0, run.updates() / total) if is_known else 1.0,
        tables.speed(run),
        tables.last_line(run),
        tables.shape(run),
        tables.command(run),
        tables.starts(run),
        run.notes,
    )
