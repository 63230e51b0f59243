"""The command that fills in masked words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.export import FillMaskConfig
from bert_pretrain.data.schema import Examples, encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.inference import answers
from tests import forked
from tests.export.conftest import Exported, _exported  # noqa: F401 (a fixture)

TEXT = "the cat is [MASK]."


def ask(path: str, *texts: str, **settings: object) -> list[str]:
    return list(answers.answer_lines(FillMaskConfig(**settings), path, texts))


def test_a_folder_and_the_checkpoint_it_was_made_of_answer_the_same(exported: Exported) -> None:
    lines = ask(exported.hf_dir, TEXT)
    assert len(lines) == 5 and lines == ask(exported.checkpoint, TEXT)
    shares = [float(line.split()[0]) for line in ask(exported.hf_dir, TEXT, top=97)]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.01)


def test_the_masked_token_is_in_its_place(exported: Exported) -> None:
    vocabulary = load_vocabulary(f"{exported.hf_dir}/vocab.txt")
    reader = answers.QuestionReader(vocabulary, True, 40)

    def entries(*texts: str) -> str:
        return " ".join(vocabulary.entries[number] for number in reader.question(*texts).word_ids[0])

    assert entries("[MASK]the [MASK] Cat[MASK]") == "[CLS] [MASK] the [MASK] cat [MASK] [SEP]"
    assert entries("a", "[MASK]\nb") == "[CLS] a [SEP] [MASK] b [SEP]"
    assert reader.question("a", "b c").type_ids.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_next_sentence_is_a_probability(exported: Exported) -> None:
    (line,) = ask(exported.hf_dir, "the cat", "of dogs", next_sentence=True)
    assert 0 <= float(line.split()[0]) <= 1


def test_what_cannot_be_asked_is_one_line(exported: Exported, tmp_path: Path) -> None:
    for texts, message in (
        (["the cat"], r"no \[MASK\]"),
        (["a " * 40 + "[MASK]"], "has 43 tokens, the model takes 40"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(exported.hf_dir, *texts)
    with pytest.raises(ValueError, match="give --bert_config_file"):
        ask(str(tmp_path / "nothing"), TEXT)


def test_held_out_sentences_come_from_the_shards(exported: Exported, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(f"{exported.hf_dir}/vocab.txt")
    sentence = "[CLS] the cat is of the dog and [MASK] is a b c . d [SEP] e f . [SEP] [PAD] [PAD]".split()
    ids = np.array([[vocabulary.id(entry) for entry in sentence]])
    mask = (ids != 0).astype(int)
    record = encode_examples(Examples(ids, mask, mask * 0, [[8, 0]], [[vocabulary.id("cat"), 0]], [[1.0, 0.0]], [0]))
    write_shard(str(tmp_path / "a.tfrecord"), record)
    (blank,) = answers.find_blanks(str(tmp_path), vocabulary, 3)
    assert answers.blank_text(blank, vocabulary) == "the cat is of the dog and [MASK] is a b c ."
    assert (blank.answer, blank.position) == ("cat", 8)
    assert len(ask(exported.hf_dir, held_out_shards=str(tmp_path))) == 3


def test_a_frequent_masked_word_is_passed_over(exported: Exported, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(f"{exported.hf_dir}/vocab.txt")
    sentence = "[CLS] the cat is of the dog and d cat is a b c . [SEP] e f . [SEP] [PAD]".split()
    ids = np.array([[vocabulary.id(entry) for entry in sentence]] * 12)
    mask = (ids != 0).astype(int)
    positions = np.array([[1, 2 + number] for number in range(12)])
    labels = np.take_along_axis(ids, positions, axis=1)
    record = encode_examples(Examples(ids, mask, mask * 0, positions, labels, np.ones((12, 2)), np.zeros(12, int)))
    write_shard(str(tmp_path / "a.tfrecord"), record)
    assert len(np.unique(labels)) == 10
    blanks = answers.find_blanks(str(tmp_path), vocabulary, 30)
    assert blanks and "the" not in {blank.answer for blank in blanks}


def test_the_command_takes_flags_after_its_arguments(exported: Exported) -> None:
    done = forked.run_module("bert_pretrain.fill_mask", [exported.hf_dir, TEXT, "--top=2"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ask(exported.hf_dir, TEXT, top=2)
    bad = forked.run_module("bert_pretrain.fill_mask", [exported.hf_dir])
    assert bad.returncode == 2 and "expected MODEL and 1 quoted texts, got 1" in bad.stderr
