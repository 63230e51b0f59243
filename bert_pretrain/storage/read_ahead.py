"""Pieces of remote files, fetched by threads before they are needed and kept in memory until newer ones come."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")

NUM_THREADS = 16  # a request waits for its answer most of the time


class ReadAhead(Generic[K]):
    """Fetches pieces by key. Safe to use from several threads; the threads of its own end with the process."""

    def __init__(self, fetch: Callable[[K], bytes], capacity: int, num_threads: int = NUM_THREADS) -> None:
        """fetch(key) returns a piece or raises OSError; `capacity` pieces that were requested are kept."""
        self._fetch, self._capacity, self._num_threads = fetch, capacity, num_threads
        self._kept: collections.OrderedDict[K, Future[bytes]] = collections.OrderedDict()  # oldest request first
        self._urgent: collections.deque[tuple[K, Future[bytes]]] = collections.deque()
        self._background: collections.deque[tuple[K, Future[bytes]]] = collections.deque()
        self._changed = threading.Condition()
        self._num_started = 0

    def request(self, keys: Iterable[K]) -> None:
        """Fetches pieces in the background; those that are kept already count as new. A failure is dropped."""
        with self._changed:
            for key in keys:
                future = self._kept.pop(key, None)
                if future is None or _has_failed(future):
                    future = Future()
                    self._background.append((key, future))
                self._kept[key] = future
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            self._wake()

    def holds(self, key: K) -> bool:
        """True for a piece that is kept or on its way."""
        with self._changed:
            future = self._kept.get(key)
            return future is not None and not _has_failed(future)

    def get(self, keys: Sequence[K]) -> list[bytes]:
        """The pieces, before all others that are waited for. OSError where one cannot be fetched."""
        with self._changed:
            futures: list[Future[bytes]] = []
            for key in keys:
                future = self._kept.get(key)
                if future is None or _has_failed(future):
                    future = Future()
                if not future.done():
                    self._urgent.append((key, future))
                futures.append(future)
            self._wake()
        return [future.result() for future in futures]

    def _wake(self) -> None:
        wanted = min(self._num_threads, len(self._urgent) + len(self._background))
        while self._num_started < wanted:
            threading.Thread(target=self._work, name="read_ahead", daemon=True).start()
            self._num_started += 1
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            key, future = self._take()
            try:
                future.set_result(self._fetch(key))
            except BaseException as error:
                future.set_exception(error)

    def _take(self) -> tuple[K, Future[bytes]]:
        """Waits for a piece to fetch."""
        with self._changed:
            while True:
                while not self._urgent and not self._background:
                    self._changed.wait()
                is_urgent = bool(self._urgent)
                key, future = (self._urgent or self._background).popleft()
                is_begun = future.running() or future.done()  # by another thread, as urgent
                if not is_begun and (is_urgent or self._kept.get(key) is future):
                    future.set_running_or_notify_cancel()
                    return key, future


def _has_failed(future: Future[bytes]) -> bool:
    return future.done() and future.exception() is not None
