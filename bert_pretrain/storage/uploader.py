"""Uploads in the background, one after another. Of those of one kind that wait, only the newest is made."""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple, Optional


class Upload(NamedTuple):
    """Something to upload."""

    what: str  # as a message names it
    make: Callable[[], None]  # raises OSError
    discard: Callable[[], None]  # called once it is made, has failed, or is not needed any more


class Uploader:
    """A thread that makes uploads. Safe to use from several threads."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """warn(line) tells of an upload that failed."""
        self._warn = warn
        self._waiting: dict[str, Upload] = {}  # by kind
        self._problems: dict[str, str] = {}  # of the newest upload of a kind
        self._is_busy = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="uploader", daemon=True).start()

    def submit(self, kind: str, upload: Upload) -> None:
        """Makes the upload as soon as those before it are made; returns at once."""
        with self._changed:
            replaced = self._waiting.pop(kind, None)
            self._waiting[kind] = upload
            self._changed.notify_all()
        if replaced:
            replaced.discard()

    def fail(self, kind: str, what: str, error: Exception) -> None:
        """Counts as an upload that failed."""
        problem = f"{what} is not uploaded ({getattr(error, 'strerror', None) or error})"
        with self._changed:
            self._problems[kind] = problem
        self._warn(f"warning: {problem}; training goes on, and the next one is tried")

    def finish(self) -> Optional[str]:
        """Waits for all uploads. Returns what is wrong with the newest of a kind, None where nothing is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._is_busy)
            return next(iter(self._problems.values()), None)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                kind = next(iter(self._waiting))
                upload, self._is_busy = self._waiting.pop(kind), True
            self._make(kind, upload)

    def _make(self, kind: str, upload: Upload) -> None:
        try:
            upload.make()
            with self._changed:
                self._problems.pop(kind, None)
        except Exception as error:  # whatever it is, finish() must end
            self.fail(kind, upload.what, error)
        finally:
            upload.discard()
