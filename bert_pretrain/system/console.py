"""What a program tells a person: its messages, and durations in words.

`log.info` prints on stdout, `log.warning` on stderr, above a progress bar. A closed terminal or pipe, or a full disk,
ends no program.
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


def duration_text(seconds: float) -> str:
    """Seconds in the two largest units: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
