"""The cost model of many ranks: its terms by hand, and what it must say at the edges."""

from __future__ import annotations

import pytest

from benchmarks import predict
from benchmarks.predict import Network, Rank, Share

BERT_LARGE = 336_226_108  # parameters, heads included


def test_bytes_of_bert_large() -> None:
    assert predict.gradient_bytes(BERT_LARGE, half=False) == 1_344_904_432
    assert predict.gradient_bytes(BERT_LARGE, half=True) == 672_452_216


@pytest.mark.parametrize(
    ("gigabytes_per_second", "num_ranks", "half", "milliseconds"),
    [
        (2.9, 8, False, 812),  # 25 Gb/s
        (2.9, 64, False, 913),
        (11.5, 8, True, 102),  # 100 Gb/s
        (24.0, 8, False, 98),  # PCIe 4
        (24.0, 64, True, 55),
        (230.0, 8, False, 10.2),  # NVLink of an A100
    ],
)
def test_seconds_of_a_ring(gigabytes_per_second: float, num_ranks: int, half: bool, milliseconds: float) -> None:
    seconds = predict.exchange_seconds(
        predict.gradient_bytes(BERT_LARGE, half), num_ranks, Network(gigabytes_per_second * 1e9, 0.0)
    )
    assert seconds * 1e3 == pytest.approx(milliseconds, rel=0.01)


def test_messages_cost_time_of_their_own() -> None:
    assert predict.exchange_seconds(0, 256, Network(1e9, 20e-6)) == pytest.approx(2 * 255 * 20e-6)


def test_one_rank_exchanges_nothing_and_waits_for_nobody() -> None:
    found = predict.predict(Rank(0.1, 0.5), Network(1e9, 1e-3), 10**9, 1, 24, Share(12.0, 12.0))
    assert found == pytest.approx((1.2, 0.0, 0.0, 0.5, 24 / 1.7, 1.0))


def test_an_update_is_the_sum_of_its_parts() -> None:
    network = Network(1e9, 0.0)
    found = predict.predict(Rank(0.1, 0.5), network, 10**9, 4, 24, Share(12.0, 15.0))
    assert (found.compute, found.waiting, found.exchange) == pytest.approx((1.2, 0.3, 1.5))
    assert found.update == pytest.approx(3.5)
    assert found.examples_per_second == pytest.approx(96 / 3.5)
    assert found.efficiency == pytest.approx(1.7 / 3.5)
    overlapped = predict.predict(Rank(0.1, 0.5), network, 10**9, 4, 24, Share(12.0, 15.0), overlap_seconds=1.0)
    assert overlapped.exchange == pytest.approx(0.5)
    assert predict.predict(Rank(0.1, 0.5), network, 10**9, 4, 24, Share(1, 1), overlap_seconds=9.0).exchange == 0.0


def test_dealt_ranks_hardly_wait_and_sliced_ones_do() -> None:
    assert predict.share(24, 8, "padded").straggler == 1.0
    assert predict.share(24, 8, "sliced").straggler > 1.15
    assert predict.share(24, 8, "dealt").straggler < 1.02
    # Without its padding, an example is about half a row.
    assert predict.share(24, 8, "dealt").mean_rows == pytest.approx(12.0, abs=0.4)
