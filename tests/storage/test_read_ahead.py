"""Pieces fetched ahead."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from bert_pretrain.storage.read_ahead import ReadAhead


def test_pieces_are_fetched_once_and_kept_up_to_the_capacity() -> None:
    fetched: Counter = Counter()

    def fetch(key: int) -> bytes:
        fetched[key] += 1
        return bytes([key])

    ahead = ReadAhead(fetch, capacity=4, num_threads=2)
    ahead.request(range(4))
    assert ahead.get([3, 0, 2, 1]) == [b"\3", b"\0", b"\2", b"\1"]
    assert ahead.get([3, 0]) == [b"\3", b"\0"]
    assert set(fetched.values()) == {1}
    ahead.request([0, 4, 5])  # 0 counts as new; 1 and 2 are the oldest
    assert [ahead.holds(key) for key in range(6)] == [True, False, False, True, True, True]
    assert ahead.get([1]) == [b"\1"]
    assert fetched[1] == 2 and not ahead.holds(1)


def test_a_piece_that_is_waited_for_comes_before_those_that_were_announced() -> None:
    gate, order = threading.Event(), []

    def fetch(key: int) -> bytes:
        gate.wait()
        order.append(key)
        return b""

    ahead = ReadAhead(fetch, capacity=10, num_threads=1)
    ahead.request(range(5))
    threading.Timer(0.2, gate.set).start()
    ahead.get([4])
    assert order.index(4) <= 1  # one may have been on its way


def test_a_failure_in_the_background_is_tried_again_when_the_piece_is_needed() -> None:
    calls: Counter = Counter()

    def fetch(key: int) -> bytes:
        calls[key] += 1
        if calls[key] == 1:
            raise OSError(5, "away")
        return b"here"

    ahead = ReadAhead(fetch, capacity=4, num_threads=1)
    ahead.request([1])
    while not calls[1]:
        time.sleep(0.01)
    time.sleep(0.05)
    assert not ahead.holds(1)
    assert ahead.get([1]) == [b"here"]
    with pytest.raises(OSError, match="away"):
        ahead.get([2])


def test_many_threads_get_what_they_ask_for() -> None:
    ahead = ReadAhead(lambda key: str(key).encode(), capacity=16, num_threads=4)
    wrong = []

    def ask(first: int) -> None:
        for start in range(first, first + 200, 7):
            keys = list(range(start, start + 20))
            ahead.request(keys[::2])
            if ahead.get(keys) != [str(key).encode() for key in keys]:
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=[50 * number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not wrong
