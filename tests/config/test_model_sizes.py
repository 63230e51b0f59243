"""The table of sizes against configs/model, and the one count of operations against values counted before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import (
    SIZES,
    count_forward_flops,
    flops_per_example,
    layer_parameters,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "model"


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_are_those_of_configs(name: str) -> None:
    assert SIZES[name].config(30_522) == ModelConfig.from_json(str(CONFIGS / f"{name}.json"))


def test_no_size_is_missing_here() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(SIZES)
    assert all(json.loads(path.read_text())["max_position_embeddings"] == 512 for path in CONFIGS.glob("*.json"))


@pytest.mark.parametrize(
    ("name", "weights", "of_one_token", "of_97", "of_512", "forward"),
    [  # FLOPs of training on an example of 1, 97.3 and 512 tokens, and of the forward passes below
        ("tiny", 393_216, 5141222.4, 529025548.8, 3436039372.8, 1808435712.0),
        ("mini", 3_145_728, 22969804.8, 2350100444.16, 14975474073.6, 9927894016.0),
        ("small", 12_582_912, 77790105.6, 7799254149.12, 46258402099.2, 32684066816.0),
        ("medium", 25_165_824, 153312153.6, 15377826293.76, 91355558707.2, 68390848512.0),
        ("base", 84_934_656, 504273254.4, 50102033587.2, 287122312396.8, 221970803712.0),
        ("large", 301_989_888, 1793177395.2, 177239483043.84, 995265242726.4, 784295333888.0),
    ],
)
def test_costs(name: str, weights: int, of_one_token: float, of_97: float, of_512: float, forward: float) -> None:
    config = SIZES[name].config(30_522)
    assert layer_parameters(config) == weights
    found = [flops_per_example(config, num_tokens) for num_tokens in (1, 97.3, 512)]
    assert found == pytest.approx([of_one_token, of_97, of_512], rel=1e-14)
    assert count_forward_flops(config, 1234.0, 567_890.0, 76.0, 5.0) == forward
