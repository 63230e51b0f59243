"""MLPerf's evaluation interval, the reference's convergence, and the check of the initial weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bert_pretrain.config.training import MlperfConfig
from bert_pretrain.mlperf import rules
from bert_pretrain.mlperf.rules import ReferenceConvergence
from bert_pretrain.run_files.results import Evaluated

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "run").glob("mlperf_[0-9]*.flags"))


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(pytest.importorskip("mlperf_logging").__file__).parent


@pytest.mark.parametrize(
    ("batch", "samples"), [(256, 150_000), (448, 150_000), (1536, 150_000), (3072, 175_000), (8192, 225_000)]
)
def test_evaluation_interval(batch: int, samples: int) -> None:
    assert rules.evaluation_interval(batch) == samples


@pytest.mark.parametrize(
    ("batch", "mean"), [(256, 2.55e6), (448, 2.41e6), (1536, 2.78e6), (3072, 2.76e6), (8192, 4.19e6)]
)
def test_samples_that_the_reference_needs(folder: Path, batch: int, mean: float) -> None:
    found = rules.reference_convergence(folder, batch)
    assert found.batch == batch
    assert found.mean == pytest.approx(mean, rel=5e-3)


def test_the_mean_is_that_of_mlperf_s_own_checker(folder: Path) -> None:
    checker = pytest.importorskip("mlperf_logging.rcp_checker.rcp_checker").RCP_Checker(
        "training", rules.RULESET, "bert", False
    )
    for record in checker.rcp_data.values():
        found = rules.reference_convergence(folder, record["BS"])
        assert (found.mean, found.deviation) == (record["RCP Mean"], record["RCP Stdev"])


def test_other_batches_are_between_their_neighbours_or_the_nearest(folder: Path) -> None:
    low, middle, high = (rules.reference_convergence(folder, batch) for batch in (256, 352, 448))
    assert middle.mean == pytest.approx((low.mean + high.mean) / 2)
    assert rules.reference_convergence(folder, 6) == low
    assert rules.reference_convergence(folder, 10**6) == rules.reference_convergence(folder, 16384)


def test_where_a_run_stands() -> None:
    one = ReferenceConvergence(256, 2_500_000, 200_000)
    assert one.standing(1_250_000, 0.6) == (
        "MLPerf: 1,250,000 samples, 50% of the way to 0.72; the reference needs 2,500,000 +- 200,000 at batch 256"
    )
    assert one.standing(2_400_000, 0.72) == (
        "MLPerf: 0.72 reached after 2,400,000 samples; the reference needs 2,500,000 +- 200,000 at batch 256, "
        "-0.5 standard deviations"
    )


@pytest.mark.parametrize("accuracy", [0.33, 0.3420, None, float("nan")])
def test_other_initial_weights_than_expected_are_refused(accuracy: float) -> None:
    evaluated = Evaluated({"masked_lm_accuracy": accuracy}, 10_000, 1.0)
    with pytest.raises(ValueError, match=r"before training is .* on 10,000 examples, expected 0.34085 \+- 0.001"):
        rules.check_initial(MlperfConfig(), evaluated)


@pytest.mark.parametrize("accuracy", [0.34085, 0.3400, 0.3415])
def test_expected_initial_weights_are_confirmed(accuracy: float) -> None:
    evaluated = Evaluated({"masked_lm_accuracy": accuracy}, 10_000, 1.0)
    assert f"is {accuracy:.5f}, expected" in rules.check_initial(MlperfConfig(), evaluated)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_the_reference_s_hyperparameters(folder: Path, recipe: Path) -> None:
    lines = [line[2:].split("=") for line in recipe.read_text().splitlines() if line.startswith("--")]
    flags = {line[0]: line[-1] for line in lines}
    batch = int(recipe.stem.split("_")[1])
    points = json.loads((folder / "rcp_checker/training_5.0.0/rcps_bert.json").read_text())
    wanted = points[f"bert_ref_{batch}"]["Hyperparams"]
    found = {
        "opt_base_learning_rate": float(flags["learning_rate"]),
        "opt_epsilon": 10.0 ** int(flags["log_epsilon"]),
        "opt_learning_rate_training_steps": int(flags["num_train_steps"]),
        "num_warmup_steps": int(flags["num_warmup_steps"]),
        "start_warmup_step": int(flags["start_warmup_step"]),
        "opt_lamb_beta_1": float(flags["beta_1"]),
        "opt_lamb_beta_2": float(flags["beta_2"]),
        "opt_lamb_weight_decay_rate": float(flags["weight_decay_rate"]),
    }
    assert found == pytest.approx({name: wanted[name] for name in found})
    ranks = int(re.search(r"(\d+) ranks x", recipe.read_text())[1])
    assert ranks * int(flags["num_accumulation_steps"]) * int(flags["train_batch_size"]) == batch
    assert flags["lr_scaling"] == "none" and flags["max_eval_steps"] == "0"
    interval = str(rules.evaluation_interval(batch))
    assert flags["samples_between_eval"] == flags["samples_start_eval"] == interval


def test_there_is_a_recipe_for_five_batches() -> None:
    assert {int(path.stem.split("_")[1]) for path in RECIPES} == {256, 448, 1536, 3072, 8192}
