from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_pretrain.check_data import estimate
from bert_pretrain.config.check_data import EstimateConfig

RECIPES = Path(__file__).parents[2] / "configs" / "run"


def test_mlperf_s_recipe_of_8_ranks(tmp_path):
    """13,700 updates of 8 x 2 x 16 examples, at 512 examples/s, on a million records."""
    (tmp_path / "results.json").write_text(json.dumps({"ranks": 8, "examples_per_second": 512.0, "more": None}))
    plan = estimate.read_planned_run(EstimateConfig(recipe=str(RECIPES / "mlperf_256.flags"), results=str(tmp_path)))
    assert plan[1:] == (8, 32, 13_700, 512.0)
    assert estimate.estimate_lines(plan, 1_000_000)[1:] == [
        "3906.2 updates an epoch of 1000000 records; the recipe has 3.51 epochs",
        "at 512 examples/s an epoch takes 32 min 33 s, the recipe 1 h 54 min, without evaluations and checkpoints",
    ]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.flags")), ids=lambda path: path.name)
def test_every_recipe_of_run_is_read(recipe):
    config = EstimateConfig(recipe=str(recipe), ranks=2)
    if recipe.stem.endswith("_data"):  # flags of make_data
        with pytest.raises(ValueError, match=r"--recipe: .* is no flag of this command"):
            estimate.read_planned_run(config)
    else:
        lines = estimate.estimate_lines(estimate.read_planned_run(config), 1)
        assert len(lines) == 2  # without a speed, no hours


def test_no_recipe_is_no_estimate():
    assert estimate.read_planned_run(EstimateConfig()) is None


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is not the results.json of a run"),
        (b"[" * 100_000, "is not the results.json of a run"),
        (b"\xff", "is not the results.json of a run"),
        (b'{"ranks": 2}', "is not the results.json of a run"),
        (b'{"ranks": 2, "examples_per_second": NaN}', "is not the results.json of a run"),
        (b'{"ranks": true, "examples_per_second": 1}', "is not the results.json of a run"),
        (b'{"ranks": 2, "examples_per_second": null}', "has no examples_per_second, because no update was timed"),
        (b'{"ranks": 2, "examples_per_second": 9}', "measured on 2 ranks, --ranks is 1"),
    ],
)
def test_results_that_say_nothing_are_refused(tmp_path, content, message):
    (tmp_path / "results.json").write_bytes(content)
    config = EstimateConfig(recipe=str(RECIPES / "demo.flags"), ranks=1, results=str(tmp_path / "results.json"))
    with pytest.raises(ValueError, match=message) as caught:
        estimate.read_planned_run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"--horovod\n", "--recipe has --horovod; give --ranks"),
        (b"--train_batch_size=many\n", "--recipe: .*train_batch_size"),
        (b"--train_batch_size=0\n", "--train_batch_size must be at least 1, got 0"),
        (b"word\n", "unexpected argument 'word'"),
        (b"\xff\xfe", "--recipe: "),
        (None, "--recipe: .*: no such file"),
    ],
)
def test_recipes_that_are_none_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "recipe").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        estimate.read_planned_run(EstimateConfig(recipe=str(tmp_path / "recipe")))
    assert "\n" not in str(caught.value)
