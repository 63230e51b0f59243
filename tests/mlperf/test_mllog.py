"""MLPerf's log of real runs, judged by mlperf_logging's checkers; the check of the initial weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bert_pretrain.data.schema import encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.mlperf import mllog
from tests.e2e import ranks, runs
from tests.train.small import MODEL, random_examples

mlp_compliance = pytest.importorskip("mlperf_logging.compliance_checker.mlp_compliance")

# Reached within 30 updates: most masked tokens are the same.
QUICK = {
    "do_eval": True,
    "train_batch_size": 8,
    "num_accumulation_steps": 1,
    "num_train_steps": 60,
    "num_warmup_steps": 0,
    "samples_start_eval": 80,
    "samples_between_eval": 80,
    "stop_threshold": 0.72,
    "max_eval_steps": 0,
    "mlperf": True,
}


def write_easy_shard(folder: Path, random: np.random.Generator, count: int) -> str:
    """Examples whose masked tokens are 7 with probability 0.85, so that 0.72 is reached, and 1.0 is not."""
    examples = random_examples(random, count)
    usual = random.random(examples.masked_lm_ids.shape) < 0.85
    ids = np.where(usual & (examples.masked_lm_ids > 0), 7, examples.masked_lm_ids)
    folder.mkdir()
    write_shard(str(folder / "part-00000.tfrecord"), encode_examples(examples._replace(masked_lm_ids=ids)))
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    return {
        "input_files_dir": write_easy_shard(root / "train", random, 240),
        "eval_files_dir": write_easy_shard(root / "eval", random, 100),
        "bert_config_file": runs.write_model(root / "bert_config.json", MODEL),
    }


def events(output_dir: Path) -> list[tuple[str, object, dict]]:
    """Key, value and metadata of the lines of mllog.txt."""
    lines = (output_dir / "mllog.txt").read_text().splitlines()
    found = [json.loads(line[len(":::MLLOG ") :]) for line in lines]
    return [(line["key"], line["value"], line["metadata"]) for line in found]


def is_compliant(output_dir: Path) -> bool:
    checker = mlp_compliance.make_checker("training", "5.0.0", quiet=False, werror=True)
    return mlp_compliance.main(str(output_dir / "mllog.txt"), "training_5.0.0/common.yaml", checker)[0]


def test_a_closed_run_s_log_passes_the_checker(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = runs.train(**data, **runs.settings(output_dir=str(tmp_path), **QUICK))
    assert results["target_reached"] and results["initial_masked_lm_accuracy"] is None
    assert is_compliant(tmp_path)
    log = events(tmp_path)
    keys = [key for key, _, _ in log]
    assert keys[-1] == "run_stop" and log[-1][2]["status"] == "success"
    assert {key for key in keys if keys.count(key) > 1} <= {
        "block_start", "block_stop", "eval_start", "eval_accuracy", "eval_stop"
    }  # fmt: skip
    values = {key: value for key, value, _ in log}
    assert (values["train_samples"], values["eval_samples"], values["global_batch_size"]) == (240, 100, 8)
    assert (values["submission_benchmark"], values["cache_clear"], values["seed"]) == ("bert", True, 0)
    assert values["trained_samples"] == results["examples"]
    accuracies = [value for key, value, _ in log if key == "eval_accuracy"]
    assert accuracies[-1] == results["masked_lm_accuracy"] and all(value < 0.72 for value in accuracies[:-1])
    assert next(about["epoch_num"] for key, _, about in log if key == "eval_accuracy") == 80
    out = capsys.readouterr().out
    assert "MLPerf: 0.72 reached after" in out
    assert "note: --mlperf_division=closed: 100 evaluation examples; MLPerf has 10,000" in out


def test_an_interrupted_run_s_log_ends_aborted_and_its_continuation_adds_nothing(data, tmp_path: Path) -> None:
    values = runs.settings(output_dir=str(tmp_path), **{**QUICK, "stop_threshold": 1.0, "num_train_steps": 12})
    assert runs.start(runs.flags(**data, **values), before=runs.signal_after(7)).returncode == -9
    assert "run_stop" not in [key for key, _, _ in events(tmp_path)]
    again = runs.start(runs.flags(**data, **values))
    assert again.returncode == 0, again.stderr
    assert "note: --mlperf: a timed run cannot be resumed; training continues at update 5" in again.stdout
    key, _, about = events(tmp_path)[-1]
    assert (key, about["status"]) == ("run_stop", "aborted")
    assert [key for key, _, _ in events(tmp_path)].count("run_stop") == 1
    before = (tmp_path / "mllog.txt").read_text()
    runs.train(**data, **values)  # finished
    assert (tmp_path / "mllog.txt").read_text() == before


def test_a_closed_run_that_misses_the_target_is_aborted_and_fails_the_checker(data, tmp_path: Path) -> None:
    runs.train(
        **data, **runs.settings(output_dir=str(tmp_path), **{**QUICK, "learning_rate": 0.0, "num_train_steps": 10})
    )
    assert events(tmp_path)[-1][2]["status"] == "aborted"
    assert not is_compliant(tmp_path)


def test_the_initial_weights_are_verified(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs.train(**data, **runs.settings(output_dir=str(tmp_path / "before"), num_train_steps=1))
    values = runs.settings(
        output_dir=str(tmp_path / "run"), init_checkpoint=str(tmp_path / "before" / "model.ckpt-1"),
        **{**QUICK, "num_train_steps": 2, "stop_threshold": 0.99}, verify_init=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"--verify_init: .* on 100 examples, expected 0.9 \+- 0.001"):
        runs.train(**data, **values, init_accuracy=0.9)
    assert events(tmp_path / "run")[-1][2]["status"] == "aborted"
    found = runs.metrics(tmp_path / "run", "eval")[0]["masked_lm_accuracy"]
    results = runs.train(**data, **values, init_accuracy=found)
    assert results["initial_masked_lm_accuracy"] == found
    assert f"--verify_init: the masked-LM accuracy before training is {found:.5f}" in capsys.readouterr().out


def test_without_the_library_one_line_says_how_to_install_it(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_logging", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"--mlperf needs the package mlperf-logging: bash init_tf\.sh"):
        runs.train(**data, **runs.settings(output_dir=str(tmp_path), **QUICK))


def test_other_ranks_write_no_log(tmp_path: Path) -> None:
    run = SimpleNamespace(config=runs.make_config(mlperf=True, output_dir=str(tmp_path)))
    mllog.open_mllog(run, 0.0, [], is_root=False, is_first_of_host=False, is_resumed=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.horovod
def test_two_ranks_write_one_log_and_verify_together(data, tmp_path: Path) -> None:
    values = runs.settings(output_dir=str(tmp_path / "run"), lr_scaling="none", **QUICK)
    ended = ranks.run([*ranks.mpirun(2), *ranks.trainer(runs.flags(**data, **values))], tmp_path / "closed")
    assert ended.code == 0, ended.err
    assert is_compliant(tmp_path / "run")
    assert {key: value for key, value, _ in events(tmp_path / "run")}["global_batch_size"] == 16
    prefix = next((tmp_path / "run").glob("model.ckpt-*.index")).with_suffix("")
    values.update(output_dir=str(tmp_path / "other"), init_checkpoint=str(prefix), verify_init=True, init_accuracy=0.1)
    ended = ranks.run([*ranks.mpirun(2), *ranks.trainer(runs.flags(**data, **values))], tmp_path / "refused")
    assert ended.code == 2, ended.err
    assert ended.err.count("error: --verify_init: the masked-LM accuracy before training is") == 1
    assert events(tmp_path / "other")[-1][2]["status"] == "aborted"
