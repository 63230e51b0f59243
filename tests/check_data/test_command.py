"""The command: shards in, report, exit code and manifest out."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.shards import build_shards
from tests import forked

PROJECT = Path(__file__).parents[2]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(200))]


def check_data(*flags):
    return forked.run_module("bert_pretrain.check_data", list(map(str, flags)))


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "vocabulary").write_text("\n".join(WORDS))
    for name in "ab":
        documents = ["\n".join(" ".join(rng.choice(WORDS[5:], 9)) for _ in range(12)) for _ in range(20)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(documents))
    spans = corpus.find_text(f"{tmp_path}/?.txt")
    config = ExampleConfig(max_seq_length=48, max_predictions_per_seq=8)
    for task in build_shards.tasks_for_directory(
        spans, str(tmp_path / "shards"), 0, str(tmp_path / "vocabulary"), config
    ):
        build_shards.make_shards(task, lambda progress: None)
    return tmp_path


def test_sound_shards(data):
    done = check_data(f"--input_files_dir={data}/shards", f"--vocab_file={data}/vocabulary", "--full")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: sound" in done.stdout and "[MASK] (id 4)" in done.stdout
    found = json.loads((data / "shards" / "manifest.json").read_text())
    assert (found["max_seq_length"], found["max_predictions_per_seq"]) == (48, 8)
    assert found["num_records"] == sum(found["shards"].values()) and found["max_token_id"] < len(WORDS)


def test_faults_of_all_kinds_are_named_at_once(data):
    shards = data / "shards"
    shutil.copy(shards / "a.txt.tfrecord", shards / "copy")
    damaged = bytearray((shards / "b.txt.tfrecord").read_bytes())
    damaged[100] ^= 1
    (shards / "b.txt.tfrecord").write_bytes(damaged)
    done = check_data(f"--input_files_dir={shards}", "--vocab_size=100")
    assert done.returncode == 1
    assert "b.txt.tfrecord:0: record 0 is damaged" in done.stdout
    assert "copy: the same records as a.txt.tfrecord" in done.stdout
    assert re.search(
        r"fault: \d+ of \d+ records .* repeat others: \d+ in .*/copy; for example, record 0 of", done.stdout
    )
    assert "it must be in [0, 100)" in done.stdout
    assert "do not train on this" in done.stdout
    assert not (shards / "manifest.json").exists()


def test_a_manifest_that_cannot_be_written_is_refused_before_the_shards_are_read(data):
    (data / "shards" / "manifest.json").mkdir()
    done = check_data(f"--input_files_dir={data}/shards")
    assert (done.returncode, done.stdout) == (2, "") and "--nowrite_manifest" in done.stderr


@pytest.mark.parametrize("num_processes", [1, 2])
def test_only_the_report_is_printed(data, num_processes):
    """Nothing of TensorFlow's import, of this process or of a worker."""
    flags = [f"--input_files_dir={data}/shards", f"--num_processes={num_processes}", "--nowrite_manifest"]
    command = [sys.executable, "-m", "bert_pretrain.check_data", *flags]
    environ = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "example" not in done.stdout


def test_shards_without_side_files_are_shown_drawn_and_estimated(data):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: bash init_tf.sh --plot")
    for side_file in (data / "shards").glob("*.json"):
        side_file.unlink()
    (data / "recipe.flags").write_text("--train_batch_size=4\n--num_accumulation_steps=2\n--num_train_steps=1000\n")
    (data / "results.json").write_text(json.dumps({"ranks": 2, "examples_per_second": 3.2}))
    done = check_data(
        f"--input_files_dir={data}/shards",
        f"--vocab_file={data}/vocabulary",
        f"--histogram={data}/lengths.png",
        f"--recipe={data}/recipe.flags",
        f"--results={data}",
        "--show=5",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\nexample ") == done.stdout.count("    [CLS] ") == 5
    assert "1000 updates of 16 examples (2 ranks x 8)" in done.stdout and "the recipe 1 h 23 min" in done.stdout
    assert (data / "lengths.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"input_files_dir": "x", "show": 3}, "--show needs --vocab_file"),
        ({"input_files_dir": "x", "vocab_file": "x", "show": -1}, "--show must be 0 to 1000, got -1"),
        ({}, "--input_files_dir is required"),
        ({"input_files_dir": "x", "vocab_size": 9, "vocab_file": "x"}, "--vocab_file and --vocab_size exclude each"),
        ({"input_files_dir": "x", "max_seq_length": 0}, "--max_seq_length must be 1 to 65535, got 0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CheckDataConfig(**settings).check()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"ranks": 2}, "--ranks needs --recipe"),
        ({"recipe": "x", "ranks": 0}, "--ranks must be at least 1, got 0"),
        ({"recipe": "x", "examples_per_second": -1.0}, "--examples_per_second must be above 0, got -1.0"),
        ({"recipe": "x", "examples_per_second": 1.0, "results": "x"}, "--results and --examples_per_second exclude"),
    ],
)
def test_invalid_settings_of_an_estimate_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EstimateConfig(**settings).check()
