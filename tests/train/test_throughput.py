"""Times and rates of updates, on a clock that the test moves."""

from __future__ import annotations

import pytest

from bert_pretrain.train import throughput
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.throughput import Throughput

UPDATE = Statistics(0, 0, 0, 0, 0, next_sentence_count=6, tokens=300, squared_lengths=0, computed=400)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: time[0])
    return time


def run_updates(timer: Throughput, now: list[float], seconds: list[float]) -> None:
    for duration in seconds:
        now[0] += duration
        timer.add_update(UPDATE, input_wait_seconds=duration / 100)


def test_the_first_updates_and_pauses_do_not_count(now: list[float]) -> None:
    timer = Throughput()
    timer.start()
    run_updates(timer, now, [50.0, 30.0, 2.0])
    with timer.paused():
        now[0] += 1000.0
    run_updates(timer, now, [2.0, 4.0])
    rates = timer.total()
    assert rates.examples_per_second == pytest.approx(18 / 8)
    assert rates.updates_per_second == pytest.approx(3 / 8)
    assert rates.tokens_per_second == pytest.approx(900 / 8)
    assert rates.padding_share == pytest.approx(0.25)
    assert rates.step_seconds_median == pytest.approx(2.0)
    assert rates.input_wait_share == pytest.approx(0.01)


def test_recent_covers_what_came_since_the_last_call(now: list[float]) -> None:
    timer = Throughput()
    timer.start()
    run_updates(timer, now, [1.0, 1.0, 3.0])
    assert timer.recent().updates_per_second == pytest.approx(1 / 3)
    run_updates(timer, now, [0.5])
    assert timer.recent().updates_per_second == pytest.approx(2.0)


def test_nothing_timed_is_none_not_zero(now: list[float]) -> None:
    timer = Throughput()
    timer.start()
    run_updates(timer, now, [1.0, 1.0])
    assert set(timer.total()) == {None}
