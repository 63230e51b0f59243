"""The work of an example against the published figures, and the rate against the clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.train import utilization
from bert_pretrain.train.forward import Statistics

CONFIGS = Path(__file__).parents[2] / "configs" / "model"


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
    one = Statistics(0, 0, masked, 0, 0, 1, length, length**2, length)
    assert utilization.training_flops(one, model) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_the_rate_is_measured_on_a_cpu_and_known_of_gpus() -> None:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1)
    assert 1e9 < utilization.peak_flops("cpu", False, None, config) < 1e13
    assert utilization.peak_flops("cpu", False, 2.0, config) == 2e12
    assert utilization.peak_flops("Tesla V100-SXM2", True, None, config) == 125e12
    assert utilization.peak_flops("Iluvatar BI-V100", True, None, config) == 147e12
    assert utilization.peak_flops("unheard of", True, None, config) == 0.0
