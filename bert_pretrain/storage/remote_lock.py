"""One job in a directory of a remote storage: a small object that names its holder and changes while that lives.

Storages have no locks. A job that finds the object watches it: an object that changes belongs to a job that lives, one
that does not to a job that was killed. No clock of another machine is needed for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from typing import Any, Callable, Dict, Optional

from bert_pretrain.storage import remote

NAME = "training.lock"
_BEAT_SECONDS = 5.0
_WATCH_SECONDS = 6 * _BEAT_SECONDS
_SETTLE_SECONDS = 1.0  # of two jobs that write the object at once, the later one has it
_KEYS = {"host", "pid", "place", "since", "token", "beat"}

Holder = Dict[str, Any]


class RemoteLock:
    """The lock of a remote directory, from construction until release() or the end of the process."""

    def __init__(self, directory: str, place: str, tell: Callable[[str], None]) -> None:
        """place: of which the caller is the only job, so that an object from there was left by a job that is dead.

        tell(line) says why it waits. ValueError names the holder, or says why the object cannot be written.
        """
        self._directory, self._url = directory, f"{directory}/{NAME}"
        self._own: Holder = {"host": socket.gethostname(), "pid": os.getpid(), "place": place, "beat": 0}
        self._own.update(since=time.strftime("%Y-%m-%d %H:%M:%S"), token=uuid.uuid4().hex)
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
                remote.remove(self._url)

    def _take(self, tell: Callable[[str], None]) -> None:
        found = holder(self._directory)
        if found and found["place"] != self._own["place"]:
            tell(f"{self._url} names {describe(found)}; watching for {_WATCH_SECONDS:.0f} seconds whether it lives")
            self._refuse_living(found)
        self._write()
        time.sleep(_SETTLE_SECONDS)
        self._refuse_other()

    def _refuse_living(self, found: Holder) -> None:
        """Returns once the object has not changed for a while, or is gone.

        A job that has lost other hosts, and is restarted elsewhere, may live a little longer than that.
        """
        begin = changed = time.monotonic()
        while time.monotonic() < changed + _WATCH_SECONDS:
            time.sleep(_BEAT_SECONDS / 5)
            now, before = holder(self._directory), found
            if now is None:
                return
            if now != before:
                found, changed = now, time.monotonic()
            if time.monotonic() > begin + _WATCH_SECONDS and time.monotonic() < changed + _WATCH_SECONDS / 2:
                raise self._in_use(now)

    def _refuse_other(self) -> None:
        found = holder(self._directory)
        if found and found["token"] != self._own["token"]:
            raise self._in_use(found)

    def _in_use(self, found: Holder) -> ValueError:
        return ValueError(
            f"--output_dir: {self._directory} is in use: {describe(found)} trains there; wait for its end, stop it, or "
            f"choose another directory; if no such job lives, remove {self._url}"
        )

    def _keep(self) -> None:
        while not self._is_released.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                found = holder(self._directory)
                self.is_lost = found is not None and found["token"] != self._own["token"]
                if self.is_lost:
                    return
                self._write()

    def _write(self) -> None:
        self._own["beat"] += 1
        remote.write_small(self._url, json.dumps(self._own).encode(), at_start=True)


def holder(directory: str) -> Optional[Holder]:
    """What the object of a directory says, None without one. OSError where that cannot be read."""
    try:
        found = json.loads(remote.read_small(f"{directory}/{NAME}"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and set(found) == _KEYS else None


def describe(found: Holder) -> str:
    """Names a holder in a message."""
    return f"process {found['pid']} on {found['host']} (since {found['since']})"
