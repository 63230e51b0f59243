"""What a process prints on stderr, C++ libraries included: a rank before each line, no lines of TensorFlow's import.

A small process filters the lines. It still prints the last lines of a process that dies. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# Copies stdin to stdout, with a prefix before each line and without lines that contain one of the other arguments. It
# ignores signals and ends at the end of its input.
_FILTER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
prefix, *hidden = map(os.fsencode, sys.argv[1:])
rest = b""
while True:
    piece = os.read(0, 65536)
    *lines, rest = (rest + piece).split(b"\\n")
    if not piece and rest:
        lines.append(rest)
    shown = b"".join(prefix + line + b"\\n" for line in lines if not any(part in line for part in hidden))
    if shown:
        os.write(1, shown)
    if not piece:
        break
"""
# TensorFlow 2.20 and later print these lines when they are imported, whatever TF_CPP_MIN_LOG_LEVEL is.
_HIDDEN = ("oneDNN custom operations are on", "All log messages before absl::InitializeLog() is called")


def prefix_rank(rank: int) -> None:
    """From now on every line on stderr, also TensorFlow's and Horovod's, starts with '[rank N] '.

    Rank 0's lines keep no prefix: it prints what concerns the whole job.
    """
    if rank > 0:
        _redirect(f"[rank {rank}] ")


@contextlib.contextmanager
def without_import_lines() -> Iterator[None]:
    """Inside, where TensorFlow is imported, its lines that say nothing about this run are left out."""
    before = os.dup(sys.stderr.fileno())
    process = _redirect("", *_HIDDEN)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, sys.stderr.fileno())
        os.close(before)
        process.wait()


def _redirect(*arguments: str) -> subprocess.Popen[bytes]:
    sys.stderr.flush()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER, *arguments],
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),
        start_new_session=True,  # keeps it from the signals that are sent to the rank's process group
    )
    assert process.stdin is not None  # it is a pipe
    os.dup2(process.stdin.fileno(), sys.stderr.fileno())
    process.stdin.close()
    return process
