"""DeepSparkHub's command for one GPU: the flags of its README and script, with data and a checkpoint of their form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.model import ModelConfig
from tests.e2e import runs
from tests.golden import checkpoint as golden
from tests.train.small import write_shards

FLAGFILE = Path(__file__).parents[2] / "configs" / "run" / "seed_1card.flags"
# MLPerf's depth and lengths at a width that a test can afford.
MODEL = ModelConfig(
    vocab_size=97, hidden_size=8, num_hidden_layers=24, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=512,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 512/76 records, a bert_config.json, and a checkpoint with the 1,197 names of model.ckpt-28252."""
    root = tmp_path_factory.mktemp("seed")
    write_shards(root / "train_data", 0, [9, 8], MODEL, seq_length=512, max_predictions=76)
    write_shards(root / "eval_data", 1, [5], MODEL, seq_length=512, max_predictions=76)
    runs.write_model(root / "bert_config.json", MODEL)
    runs.write_mlperf_checkpoint(str(root / "model.ckpt-28252"), MODEL)
    return root


def command(place: Path, output_dir: Path, *more: str) -> list[str]:
    return [
        f"--flagfile={FLAGFILE}",
        f"--input_files_dir={place}/train_data",
        f"--init_checkpoint={place}/model.ckpt-28252",
        f"--eval_files_dir={place}/eval_data",
        "--train_batch_size=6",
        f"--bert_config_file={place}/bert_config.json",
        f"--output_dir={output_dir}",
        f"--dllog_path={output_dir}/bert_dllog.json",
        "--num_train_steps=2",
        *more,
    ]


def test_runs_from_the_checkpoint_and_reports_what_it_used(place: Path, tmp_path: Path) -> None:
    done = runs.start(command(place, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "398 of 398 variables matched, 799 of its tensors not used (796 optimizer slots" in done.stdout
    assert "--amp ignored" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["updates"], results["examples"], results["end"]) == (2, 12, "completed")
    held, start = runs.tensors(tmp_path / "model.ckpt-2"), runs.tensors(place / "model.ckpt-28252")
    assert set(golden.entries()) <= set(held)
    assert {name: held[name].shape for name in golden.entries()} == {
        name: start[name].shape for name in golden.entries()
    }
    # The optimizer started from zero: two updates in, the second moment's power is beta_2 cubed.
    assert held["beta2_power"] == pytest.approx(0.999**3)


def test_loads_the_optimizer_too_when_asked(place: Path, tmp_path: Path) -> None:
    done = runs.start(command(place, tmp_path, "--init_optimizer_state", "--learning_rate=0"))
    assert done.returncode == 0, done.stderr
    assert "398 of 398 variables matched, 798 of 798 of the optimizer's" in done.stdout
    held, start = runs.tensors(tmp_path / "model.ckpt-2"), runs.tensors(place / "model.ckpt-28252")
    assert held["beta1_power"] == pytest.approx(start["beta1_power"] * 0.9**2)
    name = "bert/embeddings/word_embeddings"
    np.testing.assert_array_equal(held[name], start[name])
    assert np.abs(held[f"{name}/LAMB"] - 0.9**2 * start[f"{name}/LAMB"]).max() < 0.5
