"""A task of a worker process. No TensorFlow at import, so that the process can hide what TensorFlow's import prints."""

from __future__ import annotations

import sys

from bert_pretrain.check_data.contents import ShardFacts, ShardTask
from bert_pretrain.system.worker_pool import ReportProgress
from bert_pretrain.tensorflow_compat import tensorflow_import


def inspect(task: ShardTask, report: ReportProgress) -> ShardFacts:
    """inspection.inspect; the first call in a process imports it, and TensorFlow with it.

    Errors are those of inspection.inspect.
    """
    if "tensorflow" not in sys.modules:
        import_tensorflow()
    from bert_pretrain.check_data import inspection

    return inspection.inspect(task, report)


def import_tensorflow() -> None:
    """Imports what reads records."""
    with tensorflow_import.imported_quickly():
        from bert_pretrain.check_data import inspection  # noqa: F401
