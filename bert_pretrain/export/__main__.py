"""Checkpoint -> Hugging Face folder, SavedModel, TF1 weights: python -m bert_pretrain.export --help."""

from __future__ import annotations

from bert_pretrain import cli
from bert_pretrain.config.export import ExportConfig
from bert_pretrain.storage import local_copies
from bert_pretrain.tensorflow_compat import tensorflow_import


def _run() -> int:
    config = cli.read_settings(ExportConfig)
    config.check()
    # TensorFlow is imported late: --help and invalid flags are answered at once.
    with tensorflow_import.imported_quickly():
        from bert_pretrain.export import writing

    return writing.export_model(local_copies.localize_settings(config))


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define_flags(ExportConfig)
    cli.run_command(_run, __doc__)


if __name__ == "__main__":
    main()
