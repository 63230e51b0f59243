"""Signals that ask for a clean end: SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2.

The second SIGTERM or SIGINT ends the process at once, also inside C++ code.

Python calls signal handlers on the main thread between two bytecodes, so not while session.run or an import is in C++
code. A thread therefore reads the signals' numbers from a pipe. Standard library only: run.py listens before it imports
TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Optional

from bert_pretrain.system import processes

# A run that has nothing to save ends this long after a signal, wherever it is: in a compiler, waiting for other ranks.
_SECONDS_TO_LEAVE = 8.0


class Interrupted(BaseException):
    """Ends a run that was asked to stop while it had nothing to save. No Exception: it is not an error to handle."""


class StopRequest:
    """Whether this process was asked to stop, and what the run would lose by that."""

    def __init__(self, rank: int = 0, num_ranks: int = 1) -> None:
        """rank: this process's number; only rank 0 prints."""
        # Ranks that join wait for all others without end, unless one fails, on which the launcher ends them.
        self.is_awaited = num_ranks > 1
        self.requested = False
        self.has_updates = False  # this start has made an update, which a stop saves
        self._rank = rank
        self._is_abandoning = False
        self._has_interrupted = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals are received. Only the main thread may enter it."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        threading.Thread(target=self._watch, args=[reader], name="signals", daemon=True).start()
        previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            with processes.handling_signals(self._on_main_thread):
                yield
        finally:
            signal.set_wakeup_fd(previous_writer)
            os.close(writer)  # ends the thread

    @contextlib.contextmanager
    def abandoning(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted, unless there is something to save. For local work, no collectives."""
        try:
            self._is_abandoning = True
            if self.is_abandoned:
                raise Interrupted
            yield
        except Exception:
            # TensorFlow's C++ code calls Python while it builds a graph, and makes an error of an Interrupted there.
            if self._has_interrupted:
                raise Interrupted from None
            raise
        finally:
            self._is_abandoning = False

    @property
    def is_abandoned(self) -> bool:
        """True where a stop was requested and there is nothing to save."""
        return self.requested and not self.has_updates

    def print_end(self) -> None:
        """The line with which a run ends that has nothing to save."""
        if self._rank == 0:
            print("stopped by a signal, with nothing to save; the same command starts again", flush=True)

    def _on_main_thread(self, number: int, frame: Optional[FrameType]) -> None:
        self.requested = True
        if self._is_abandoning and self.is_abandoned and not self._has_interrupted:
            self._has_interrupted = True
            raise Interrupted

    def _watch(self, reader: int) -> None:
        first = number = _next_signal(reader) or 0
        self.requested = first != 0
        end, num_urgent = time.monotonic() + _SECONDS_TO_LEAVE, 0
        while number != 0:
            num_urgent += number is not None and processes.is_urgent(number)
            if number and num_urgent > 1:
                os._exit(128 + number)
            seconds_left = end - time.monotonic()
            if seconds_left <= 0 and self.is_abandoned:
                self.print_end()
                os._exit(128 + first if self.is_awaited else 0)
            number = _next_signal(reader, seconds_left if seconds_left > 0 else None)


def _next_signal(reader: int, timeout: Optional[float] = None) -> Optional[int]:
    """The number of the next signal; None after timeout seconds without one, 0 when listening has ended."""
    if not select.select([reader], [], [], timeout)[0]:
        return None
    received = os.read(reader, 1)
    if not received:
        os.close(reader)
    return received[0] if received else 0
