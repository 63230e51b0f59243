"""What bert_pretrain.make_data and Google's script write is what training reads, and a manifest is insisted on."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.e2e import runs

PROJECT = Path(__file__).parent.parent.parent
REFERENCE = PROJECT / "tests" / "references" / "google_data.py"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(50))]
LENGTHS = ("--max_seq_length=32", "--max_predictions_per_seq=5", "--dupe_factor=2")
NUM_UPDATES = 2


def run(*command: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text, its vocabulary, a model of that size, and ours/ with the shards of fast mode."""
    folder = tmp_path_factory.mktemp("made")
    rng = random.Random(0)
    for name in ("a.txt", "b.txt"):
        sentences = [" ".join(rng.choices(VOCABULARY[5:], k=8)) for _ in range(120)]
        documents = ["\n".join(sentences[start : start + 6]) for start in range(0, 120, 6)]
        (folder / name).write_text("\n\n".join(documents) + "\n")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    runs.write_model(folder / "model.json", dataclasses.replace(runs.MODEL, vocab_size=len(VOCABULARY)))
    text = (f"--input_file={folder}/?.txt", f"--vocab_file={folder}/vocab.txt")
    made = forked.run_module(
        "bert_pretrain.make_data", ["--num_processes=1", f"--output_dir={folder}/ours", *text, *LENGTHS]
    )
    assert made.returncode == 0, made.stderr
    return folder


def train(made: Path, shards: Path, output_dir: Path, **changes: object) -> dict[str, object]:
    data = {"input_files_dir": str(shards), "bert_config_file": str(made / "model.json"), **changes}
    return runs.train(**data, **runs.settings(output_dir=str(output_dir), num_train_steps=NUM_UPDATES))


def assert_trained(results: dict[str, object], output_dir: Path) -> None:
    assert (results["updates"], results["end"]) == (NUM_UPDATES, "completed")
    # An untrained network knows nothing: about ln(55) for a masked token and ln(2) for a pair of sentences.
    losses = [point["loss"] for point in runs.metrics(output_dir, "train")]
    assert losses == [pytest.approx(4.0 + 0.7, abs=0.5)] * NUM_UPDATES


def test_shards_of_fast_mode_train_and_their_manifest_is_insisted_on(made: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(made / "ours", shards)
    flags = [f"--input_files_dir={shards}", f"--vocab_file={made}/vocab.txt"]
    assert "manifest.json is written" in forked.run_module("bert_pretrain.check_data", flags).stdout
    assert_trained(train(made, shards, tmp_path / "run"), tmp_path / "run")
    (tmp_path / "other.txt").write_text("\n".join(VOCABULARY[:-1]) + "\nw50\n")
    with pytest.raises(ValueError, match=r"a\.txt\.tfrecord .*other\.txt"):
        train(made, shards, tmp_path / "refused", dynamic_masking=True, vocab_file=str(tmp_path / "other.txt"))

    shutil.copy(shards / "a.txt.tfrecord", shards / "c.txt.tfrecord")
    with pytest.raises(ValueError, match=r"manifest\.json: c\.txt\.tfrecord is new") as error:
        train(made, shards, tmp_path / "other run")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not importlib.util.find_spec("bert"), reason="needs bert-tensorflow==1.0.4")
def test_shards_of_googles_script_train(made: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    text = (f"--input_file={made}/?.txt", f"--vocab_file={made}/vocab.txt")
    outputs = ",".join(str(shards / name) for name in ("one", "two"))
    run(REFERENCE, *text, *LENGTHS, f"--output_file={outputs}")
    assert_trained(train(made, shards, tmp_path / "run"), tmp_path / "run")
    redrawn = {"dynamic_masking": True, "vocab_file": str(made / "vocab.txt")}
    assert_trained(train(made, shards, tmp_path / "redrawn", **redrawn), tmp_path / "redrawn")
