"""Times and rates of updates, on a clock that the test moves.

The work of an example against the published figures, and the rate against the clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.train import throughput
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.throughput import Throughput

UPDATE = Statistics(0, 0, 0, 0, 0, next_sentence_count=6, examples=6, tokens=300, squared_lengths=0, computed=400)
CONFIGS = Path(__file__).parents[2] / "configs" / "model"


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


@pytest.mark.parametrize(
    ("name", "length", "masked", "gflop"),
    [  # one example without padding, forward and backward, counted by hand
        ("large", 512, 76, 995.1),
        ("large", 128, 20, 234.6),
        ("base", 512, 76, 287.0),
        ("base", 128, 20, 66.5),
        ("mini", 512, 76, 14.94),
        ("tiny", 512, 76, 3.417),
    ],
)
def test_work_of_an_example(name: str, length: int, masked: int, gflop: float) -> None:
    model = ModelConfig.from_json(str(CONFIGS / f"{name}.json"))
    one = Statistics(0, 0, masked, 0, 0, 1, 1, length, length**2, length)
    assert throughput.training_flops(one, model) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_the_rate_is_measured_on_a_cpu_and_known_of_gpus() -> None:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1)
    assert 1e9 < throughput.peak_flops("cpu", False, None, config) < 1e13
    assert throughput.peak_flops("cpu", False, 2.0, config) == 2e12
    assert throughput.peak_flops("Tesla V100-SXM2", True, None, config) == 125e12
    assert throughput.peak_flops("Iluvatar BI-V100", True, None, config) == 147e12
    assert throughput.peak_flops("unheard of", True, None, config) == 0.0
