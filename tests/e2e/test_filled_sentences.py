"""--filled_sentences and --hf_dir: what a run prints of held-out text and exports when it has ended."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import pytest

from tests import forked
from tests.e2e import runs

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
HEAD = "held-out sentences with a masked word, the word that stood there, and the model's best words:"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that name shards of sentences with a vocabulary beside them, and a model elsewhere."""
    folder = tmp_path_factory.mktemp("sentences")
    rng = random.Random(0)
    documents = ["\n".join(" ".join([*rng.choices(WORDS, k=9), "."]) for _ in range(6)) for _ in range(20)]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    settings = ("--max_seq_length=48", "--max_predictions_per_seq=7", "--dupe_factor=1", "--num_processes=1")
    paths = (f"--input_file={folder}/text.txt", f"--vocab_file={folder}/vocab.txt", f"--output_dir={folder}/shards")
    assert forked.run_module("bert_pretrain.make_data", [*paths, *settings]).returncode == 0
    (folder / "model").mkdir()
    model = dataclasses.replace(runs.MODEL, vocab_size=len(VOCABULARY))
    shards = str(folder / "shards")
    return {
        "input_files_dir": shards,
        "eval_files_dir": shards,
        "bert_config_file": runs.write_model(folder / "model" / "bert_config.json", model),
    }


def flags(data: dict[str, str], output_dir: Path, **changes: object) -> list[str]:
    return runs.flags(**data, **runs.settings(output_dir=str(output_dir), filled_sentences=2, **changes))


def test_a_finished_run_exports_and_fills_in_sentences_after_its_row(data, tmp_path: Path) -> None:
    run_dir, hf_dir = tmp_path / "run", tmp_path / "hf"
    (tmp_path / ".hf.1.partial").mkdir()  # of an export that was killed
    stopped = runs.start(flags(data, run_dir, hf_dir=hf_dir), before=runs.signal_after(7, "SIGTERM"))
    assert stopped.returncode == 0, stopped.stderr
    assert HEAD not in stopped.stdout and not hf_dir.exists()
    done = runs.start(flags(data, run_dir, hf_dir=hf_dir))
    assert done.returncode == 0, done.stderr
    run, _, sentences = done.stdout.partition(HEAD + "\n")
    assert "| completed |\nnext:\n" in run and run.endswith(f"{hf_dir} is written\n")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "hf"}
    assert (hf_dir / "model.safetensors").is_file()
    lines = sentences.splitlines()
    assert len(lines) == 4
    for sentence, answer in zip(lines[::2], lines[1::2]):
        assert set(sentence.split()) <= {*WORDS, "[MASK]", "."} and sentence.count("[MASK]") == 1
        assert answer.split(";")[0].strip() in WORDS and answer.count(",") == 4


def test_a_folder_that_is_there_is_kept(data, tmp_path: Path) -> None:
    kept = tmp_path / "hf" / "file"
    kept.parent.mkdir()
    kept.write_text("")
    done = runs.start(flags(data, tmp_path / "run", hf_dir=kept.parent, num_train_steps=1))
    assert done.returncode == 0, done.stderr
    assert f"note: --hf_dir: {kept.parent} " in done.stdout
    assert [path.name for path in kept.parent.iterdir()] == ["file"]


def test_a_vocabulary_that_is_gone_is_a_note(data, tmp_path: Path) -> None:
    shutil.copytree(data["eval_files_dir"], tmp_path / "shards")
    for side_file in (tmp_path / "shards").glob("*.json"):
        side_file.unlink()
    moved = dict.fromkeys(("input_files_dir", "eval_files_dir"), str(tmp_path / "shards"))
    done = runs.start(flags({**data, **moved}, tmp_path / "run", num_train_steps=1))
    assert done.returncode == 0, done.stderr
    assert "note: --filled_sentences:" in done.stdout and "vocab.txt" in done.stdout


def test_sentences_need_evaluation_data(data, tmp_path: Path) -> None:
    refused = runs.start(flags({**data, "eval_files_dir": ""}, tmp_path))
    assert refused.returncode == 2
    assert "error: --filled_sentences needs --eval_files_dir" in refused.stderr
