"""One job in a directory of a remote storage: a small object that names its holder and changes while that lives.

Storages have no locks. A job that finds the object watches it: an object that changes belongs to a job that lives, one
that does not to a job that was killed. No clock of another machine is needed for that.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from typing import Callable, Optional

from bert_pretrain.storage import remote
from bert_pretrain.system import locks
from bert_pretrain.system.locks import TRAINING, HeldError, Holder

LOCK_NAME = "training.lock"
_BEAT_SECONDS = 5.0
_WATCH_SECONDS = 6 * _BEAT_SECONDS
_SETTLE_SECONDS = 1.0  # of two jobs that write the object at once, the later one has it
_HOLDER_KEYS = {"host", "pid", "place", "since", "token", "beat"}


class RemoteLock:
    """The lock of a remote directory, from construction until release() or the end of the process."""

    def __init__(self, directory: str, place: str, tell: Callable[[str], None]) -> None:
        """place: of which the caller is the only job, so that an object from there was left by a job that is dead.

        tell(line) says why it waits. HeldError names the holder; ValueError where the object cannot be written.
        """
        self._directory, self._url = directory, f"{directory}/{LOCK_NAME}"
        self._own: Holder = {**locks.this_holder(), "place": place, "token": uuid.uuid4().hex, "beat": 0}
        self.is_lost = False  # another job has taken it
        self._is_released = threading.Event()
        try:
            self._take(tell)
        except OSError as error:
            raise ValueError(f"--output_dir: {self._url} cannot be written ({error.strerror})") from None
        self._heart = threading.Thread(target=self._keep, name="remote_lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Removes the object."""
        self._is_released.set()
        self._heart.join()
        with contextlib.suppress(OSError):
            if not self.is_lost:
                remote.remove_file(self._url)

    def _take(self, tell: Callable[[str], None]) -> None:
        found = read_holder(self._directory)
        if found and found["place"] != self._own["place"]:
            tell(locks.watching_line(self._url, found, _WATCH_SECONDS))
            # A job that has lost other hosts, and is restarted elsewhere, may live a little longer than the watch.
            if locks.watch_holder(
                lambda: read_holder(self._directory), _WATCH_SECONDS, every=_BEAT_SECONDS / 5, patience=_WATCH_SECONDS
            ):
                raise self._held_error(read_holder(self._directory) or found)
        self._write()
        time.sleep(_SETTLE_SECONDS)
        found = read_holder(self._directory)
        if self._is_other(found):
            raise self._held_error(found)

    def _is_other(self, found: Optional[Holder]) -> bool:
        return found is not None and found["token"] != self._own["token"]

    def _held_error(self, found: Optional[Holder]) -> HeldError:
        return TRAINING.held_error(self._directory, found, f"; if no such job lives, remove {self._url}")

    def _keep(self) -> None:
        while not self._is_released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                self.is_lost = self._is_other(read_holder(self._directory))
                if self.is_lost:
                    return
                self._write()

    def _write(self) -> None:
        self._own["beat"] += 1
        remote.write_small(self._url, json.dumps(self._own).encode(), at_start=True)


def read_holder(directory: str) -> Optional[Holder]:
    """What the object of a directory says, None without one. OSError where that cannot be read."""
    try:
        return locks.parse_holder(remote.read_small(f"{directory}/{LOCK_NAME}"), _HOLDER_KEYS)
    except FileNotFoundError:
        return None
