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

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import schema
from bert_pretrain.data.dynamic_masking import original_tokens
from bert_pretrain.data.shards.shard_index import ShardIndex
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


def single_sequences(path: Path, capacity: int) -> list[list[int]]:
    """The token ids of a text's records: of consecutive sentences of a document, as many as fit."""
    found: list[list[int]] = []
    for document in path.read_text().split("\n\n"):
        found.append([])
        for sentence in document.splitlines():
            ids = [VOCABULARY.index(word) for word in sentence.split()]
            if len(found[-1]) + len(ids) > capacity:
                found.append([])
            found[-1] += ids
    return found


def test_single_sequences_hold_the_text_and_train_without_the_next_sentence_task(
    made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--input_file={made}/?.txt", f"--vocab_file={made}/vocab.txt", f"--output_dir={tmp_path}/shards"]
    settings = ("--single_sequence", "--short_seq_prob=0", "--dupe_factor=1", "--num_processes=1")
    done = forked.run_module("bert_pretrain.make_data", [*flags, *LENGTHS, *settings])
    assert done.returncode == 0, done.stderr
    for name in ("a.txt", "b.txt"):
        index = ShardIndex([str(tmp_path / "shards" / f"{name}.tfrecord")])
        names = [str(number) for number in range(index.num_records)]
        records = [bytes(record) for record in index.read(np.arange(index.num_records))]
        examples = schema.parse_examples(tf.constant(records), names, 32, 5).numpy()
        lengths = examples.input_mask.sum(axis=1)
        ids = [row[:length].tolist() for row, length in zip(original_tokens(examples), lengths)]
        assert sorted(ids) == sorted([2, *tokens, 3] for tokens in single_sequences(made / name, 30))
        assert not examples.segment_ids.any() and not examples.next_sentence_labels.any()
    checked = forked.run_module("bert_pretrain.check_data", [f"--input_files_dir={tmp_path}/shards", *flags[1:2]])
    assert checked.returncode == 0 and "verdict: sound" in checked.stdout, checked.stdout
    assert "single sequences: no record" in checked.stdout and ", a single sequence:" in checked.stdout

    results = train(made, tmp_path / "shards", tmp_path / "run", next_sentence_weight=0.0)
    assert (results["updates"], results["end"]) == (NUM_UPDATES, "completed")
    losses = [point["loss"] for point in runs.metrics(tmp_path / "run", "train")]
    assert losses == [pytest.approx(4.0, abs=0.5)] * NUM_UPDATES
    assert "single sequences" not in capfd.readouterr().err
    train(made, tmp_path / "shards", tmp_path / "weighed")
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if "single sequences" in line]
    assert warning.startswith("warning: --input_files_dir: ") and "--next_sentence_weight=0" in warning


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
