"""What a program tells a person: `log.info` prints on stdout, `log.warning` on stderr, above a progress bar.

A closed terminal or pipe, or a full disk, ends no program.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from tqdm import tqdm


class _ConsoleHandler(logging.Handler):
    """Prints each message as it is. Streams are looked up at each message, since they may be replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        with contextlib.suppress(OSError, ValueError):
            tqdm.write(record.getMessage(), file=stream)
            stream.flush()


log = logging.getLogger("bert_pretrain")
log.addHandler(_ConsoleHandler())
log.setLevel(logging.INFO)
log.propagate = False  # absl and TensorFlow print what reaches the root logger once more
