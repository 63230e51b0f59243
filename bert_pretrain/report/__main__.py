"""Runs -> one self-contained HTML page: python -m bert_pretrain.report RUN_DIR [RUN_DIR ...] [--output=report.html].

A RUN_DIR is the --output_dir of a training run, finished or not; a path or a URL.
"""

from __future__ import annotations

from collections.abc import Sequence

from bert_pretrain import cli
from bert_pretrain.config.report import ReportConfig
from bert_pretrain.report.page import render_page
from bert_pretrain.report.run_folder import read_runs
from bert_pretrain.run_files.metrics import METRICS_JSONL
from bert_pretrain.run_files.results import RESULTS_JSON
from bert_pretrain.run_files.run_json import RUN_JSON
from bert_pretrain.storage import local_copies
from bert_pretrain.system import files


def _run(folders: Sequence[str]) -> int:
    config = cli.read_settings(ReportConfig)
    config.check(len(folders))
    files.require_free_name("--output", config.output)
    names = (RUN_JSON, METRICS_JSONL, RESULTS_JSON)
    runs = read_runs([local_copies.local_folder("RUN_DIR", folder, names) for folder in folders])
    content = files.printable(render_page(runs, config.title)).encode()
    try:
        with files.atomic_write(config.output, "wb") as file:
            file.write(content)
    except OSError as error:
        raise ValueError(f"--output: {config.output} cannot be written: {error.strerror}") from None
    for run in runs:
        for note in run.notes:
            print(f"note: {run.name}: {note}")
    print(f"{config.output}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {len(content) / 1000:,.0f} kB")
    return 0


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define_flags(ReportConfig)
    cli.run_command(_run, __doc__, takes_arguments=True)


if __name__ == "__main__":
    main()
