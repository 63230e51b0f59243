"""A task of a worker process. No TensorFlow at import, so that the process can hide what TensorFlow's import prints."""

from __future__ import annotations

import os
import sys

from bert_pretrain import stderr
from bert_pretrain.check_data.contents import ShardFacts, ShardTask
from bert_pretrain.worker_pool import Report


def inspect(task: ShardTask, report: Report) -> ShardFacts:
    """inspection.inspect; the first call in a process imports it, and TensorFlow with it."""
    if "tensorflow" not in sys.modules:
        import_tensorflow()
    from bert_pretrain.check_data import inspection

    return inspection.inspect(task, report)


def import_tensorflow() -> None:
    """Imports what reads records. Lines of TensorFlow's import that say nothing about the data are left out."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with stderr.without_import_lines():
        from bert_pretrain.check_data import inspection  # noqa: F401
