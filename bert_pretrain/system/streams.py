"""The standard streams of a process: nothing that becomes of them ends it. A rank before each line on stderr.

C++ libraries print on stderr, too. A small process filters its lines, and still prints the last ones of a process that
dies. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Optional, TextIO

# Copies stdin to stdout, with a prefix before each line and without lines that contain one of the other arguments. It
# ignores signals and ends at the end of its input. What stdout does not take is dropped.
_FILTER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
prefix, *hidden = map(os.fsencode, sys.argv[1:])
rest = b""
while True:
    piece = os.read(0, 65536)
    *lines, rest = (rest + piece).split(b"\\n")
    if not piece and rest:
        lines.append(rest)
    shown = b"".join(prefix + line + b"\\n" for line in lines if not any(part in line for part in hidden))
    try:
        if shown:
            os.write(1, shown)
    except OSError:
        pass
    if not piece:
        break
"""
# TensorFlow 2.20 and later print these lines when they are imported, whatever TF_CPP_MIN_LOG_LEVEL is.
_HIDDEN = ("oneDNN custom operations are on", "All log messages before absl::InitializeLog() is called")


# --- Streams that are closed, full, broken, or of few characters ---


class _Output(io.FileIO):
    """A standard stream that drops what its terminal, pipe or disk does not take."""

    failure: Optional[OSError] = None  # the first one

    def write(self, data: Any) -> int:
        try:
            while (num_written := super().write(data)) is None:  # another process has made the stream non-blocking
                select.select([], [self], [])
            return num_written
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


def secure_streams() -> None:
    """First in a program: from here on its standard streams raise nothing, whatever becomes of them.

    A stream that is closed is opened on /dev/null, for this process and those that it starts: a file would get its
    number, and what is printed. What a stream does not take is dropped; a character that it lacks is escaped.
    """
    while True:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if number > 2:
            os.close(number)
            break
        os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
    for name, number in (("stdout", 1), ("stderr", 2)):
        before: Optional[TextIO] = getattr(sys, name)
        # A stream of another kind is a test's or a notebook's.
        if before is getattr(sys, f"__{name}__") and not isinstance(_raw(before), _Output):
            secured = _secured(before, number)
            setattr(sys, name, secured)
            setattr(sys, f"__{name}__", secured)


def _secured(before: Optional[TextIO], number: int) -> io.TextIOWrapper:
    raw = _Output(number, "wb", closefd=False)
    if not isinstance(before, io.TextIOWrapper):  # it was closed
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    is_unbuffered = before.write_through
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # as Python makes it with -u
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=is_unbuffered,
    )


def _raw(stream: Optional[TextIO]) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def print_answer(text: str) -> None:
    """Prints what a command was asked for, on stdout. SystemExit where stdout does not take it.

    Quietly, with the exit code of a program that SIGPIPE ends, where the reader of a pipe wants no more; else with one
    line on stderr and exit code 1.
    """
    print(text, flush=True)
    raw = _raw(sys.stdout)
    failure = raw.failure if isinstance(raw, _Output) else None
    if failure is None:
        return
    if failure.errno == errno.EPIPE:
        sys.exit(128 + signal.SIGPIPE)
    print(f"error: stdout cannot be written: {failure.strerror}", file=sys.stderr)
    sys.exit(1)


# --- Lines on stderr ---


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
