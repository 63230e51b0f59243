"""Checkpoint -> Hugging Face folder, SavedModel, TF1 weights: python -m bert_pretrain.export --help."""

from __future__ import annotations

import os

from bert_pretrain import cli, stderr
from bert_pretrain.config.export import ExportConfig
from bert_pretrain.storage import local_copies


def _run() -> int:
    config = cli.read(ExportConfig)
    config.check()
    # TensorFlow is imported late: --help and invalid flags are answered at once, and its log level is set first.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with stderr.without_import_lines():
        from bert_pretrain.export import writing

    return writing.export(local_copies.localized(config))


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define(ExportConfig)
    cli.main(_run, __doc__)


if __name__ == "__main__":
    main()
