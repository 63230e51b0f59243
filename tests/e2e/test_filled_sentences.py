"""--filled_sentences and --hf_dir: what a run prints of held-out text and exports when it has ended."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data.schema import read_examples
from bert_pretrain.inference.stored_model import Network, find_stored_model
from tests import forked
from tests.e2e import runs

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
HEAD = (
    "the first held-out sentences with a masked word that is not among the 100 most frequent, the word that stood "
    "there, and the model's best words:"
)


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


def test_accuracy_on_rare_words_is_that_of_the_exported_network(data, tmp_path: Path) -> None:
    done = runs.start(flags(data, tmp_path / "run", do_eval=True, max_eval_steps=0, hf_dir=tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = find_stored_model(str(tmp_path / "hf"), "MODEL", None, None, None)
    labels, hits = [], []
    with Network(found.config, found.read_values()) as network:
        for path in sorted(Path(data["eval_files_dir"]).glob("*.tfrecord")):
            records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
            examples = read_examples(records, [path.name] * len(records), 48, 7)
            logits = network.run(examples.input_ids, examples.input_mask, examples.segment_ids).masked_lm_logits
            for number, slot in np.argwhere(examples.masked_lm_weights > 0):
                label = examples.masked_lm_ids[number, slot]
                labels.append(label)
                hits.append(logits[number, examples.masked_lm_positions[number, slot]].argmax() == label)
    counts = np.bincount(labels)
    assert results["masked_lm_accuracy"] == pytest.approx(np.mean(hits))
    is_rare = [counts[label] < sorted(counts)[-(np.count_nonzero(counts) // 10)] for label in labels]
    assert 0 < sum(is_rare) < len(labels)
    assert results["masked_lm_accuracy_rare"] == pytest.approx(np.mean(np.array(hits)[is_rare]))


def without_side_files(data: dict[str, str], folder: Path) -> dict[str, str]:
    """The data in `folder`, where nothing says with which vocabulary they were made."""
    shutil.copytree(data["eval_files_dir"], folder)
    for side_file in folder.glob("*.json"):
        side_file.unlink()
    return {**data, **dict.fromkeys(("input_files_dir", "eval_files_dir"), str(folder))}


def vocabulary_without_pad(data: dict[str, str], folder: Path) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "vocab.txt").write_text("\n".join(["[unused0]", *VOCABULARY[1:]]) + "\n")
    changes = {"hf_dir": folder / "hf", "vocab_file": folder / "vocab.txt"}
    return data, changes, f"--vocab_file: {folder}/vocab.txt has no [PAD]"


def vocabulary_larger_than_the_model(
    data: dict[str, str], folder: Path
) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "omega"]) + "\n")
    changes = {"hf_dir": folder / "hf", "vocab_file": folder / "vocab.txt"}
    return data, changes, f"{folder}/vocab.txt has {len(VOCABULARY) + 1} entries, the model {len(VOCABULARY)}"


def no_vocabulary_to_export(data: dict[str, str], folder: Path) -> tuple[dict[str, str], dict[str, object], str]:
    return without_side_files(data, folder / "shards"), {"hf_dir": folder / "hf"}, "--hf_dir needs --vocab_file"


def no_vocabulary_to_fill_in(data: dict[str, str], folder: Path) -> tuple[dict[str, str], dict[str, object], str]:
    return without_side_files(data, folder / "shards"), {}, "--filled_sentences: "


def something_in_the_way_of_the_export(
    data: dict[str, str], folder: Path
) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "hf").mkdir()
    (folder / "hf" / "file").write_text("")
    return data, {"hf_dir": folder / "hf"}, f"--hf_dir: {folder}/hf exists already"


def no_folder_for_the_export(data: dict[str, str], folder: Path) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "file").write_text("")
    return data, {"hf_dir": folder / "file" / "hf"}, f"--hf_dir: {folder}/file/hf cannot be written"


def a_directory_where_results_go(data: dict[str, str], folder: Path) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "run" / "results.json").mkdir(parents=True)
    return data, {}, f"--output_dir: {folder}/run/results.json is a directory"


def a_file_where_the_best_checkpoint_goes(
    data: dict[str, str], folder: Path
) -> tuple[dict[str, str], dict[str, object], str]:
    (folder / "run").mkdir()
    (folder / "run" / "best").write_text("")
    return data, {}, f"--output_dir: {folder}/run/best is no directory"


@pytest.mark.parametrize(
    "case",
    [
        vocabulary_without_pad,
        vocabulary_larger_than_the_model,
        no_vocabulary_to_export,
        no_vocabulary_to_fill_in,
        something_in_the_way_of_the_export,
        no_folder_for_the_export,
        a_directory_where_results_go,
        a_file_where_the_best_checkpoint_goes,
    ],
    ids=lambda case: case.__name__,
)
def test_a_run_whose_end_would_fail_is_refused_before_its_first_update(data, tmp_path: Path, case) -> None:
    changed, changes, message = case(data, tmp_path)
    refused = runs.start(flags(changed, tmp_path / "run", **changes))
    assert refused.returncode == 2, refused.stdout + refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list((tmp_path / "run").glob("model.ckpt*")) and "update 1" not in refused.stdout


def test_a_run_with_a_byte_order_mark_and_a_blank_last_line_in_its_vocabulary_is_exported(data, tmp_path: Path) -> None:
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*VOCABULARY, "", ""]).encode())
    changes = {"hf_dir": tmp_path / "hf", "vocab_file": vocab_file, "num_train_steps": 1}
    done = runs.start(flags(data, tmp_path / "run", **changes))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hf" / "vocab.txt").read_text().splitlines() == VOCABULARY


def test_an_exported_folder_is_kept_when_the_run_is_started_again(data, tmp_path: Path) -> None:
    for num_train_steps in (1, 2):
        changes = {"hf_dir": tmp_path / "hf", "num_train_steps": num_train_steps}
        done = runs.start(flags(data, tmp_path / "run", **changes))
        assert done.returncode == 0, done.stderr
    assert f"note: --hf_dir: {tmp_path}/hf " in done.stdout


def test_sentences_need_evaluation_data(data, tmp_path: Path) -> None:
    refused = runs.start(flags({**data, "eval_files_dir": ""}, tmp_path))
    assert refused.returncode == 2
    assert "error: --filled_sentences needs --eval_files_dir" in refused.stderr
