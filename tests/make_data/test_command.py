"""The command: flags in, shards, exit codes and one-line errors out."""

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.system.locks import DATA, locked_directory

PROJECT = Path(__file__).parents[2]
MPIRUN = Path(sys.executable).parent / "mpirun"


def make_data(*flags, launcher=()):
    command = [*launcher, sys.executable, "-m", "bert_pretrain.make_data", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, env=dict(os.environ))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    for name in ("a.txt", "b.txt", "c.txt"):
        sentences = [" ".join(rng.choices(words, k=8)).capitalize() + "." for _ in range(120)]
        documents = ["\n".join(sentences[start : start + 6]) for start in range(0, 120, 6)]
        (path / name).write_text("\n\n".join(documents))
    made = make_data(
        f"--input_file={path}/?.txt", f"--vocab_file={path}/vocabulary", "--train_vocab", "--vocab_size=60"
    )
    assert made.returncode == 0, made.stderr
    return path


def flags_for(folder, output, *more):
    return [
        f"--input_file={folder}/?.txt",
        f"--vocab_file={folder}/vocabulary",
        f"--output_dir={folder}/{output}",
        "--max_seq_length=32",
        "--max_predictions_per_seq=5",
        *more,
    ]


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_vocabulary_is_trained(folder):
    entries = (folder / "vocabulary").read_text().splitlines()
    assert entries[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] and len(entries) == 60


def test_vocabulary_does_not_depend_on_the_number_of_processes(folder, tmp_path):
    made = make_data(
        f"--input_file={folder}/?.txt",
        f"--vocab_file={tmp_path}/vocabulary",
        "--train_vocab",
        "--vocab_size=9999",
        "--num_processes=2",
        f"--eval_input_file={folder}/a.txt",
    )
    assert made.returncode == 0, made.stderr
    entries = (folder / "vocabulary").read_text().splitlines()
    assert (tmp_path / "vocabulary").read_text().splitlines()[:60] == entries
    assert "fewer than --vocab_size 9999" in made.stdout and "held-out text: 1.000 pieces a word" in made.stdout
    assert '"unknown_words": 0' in (tmp_path / "vocabulary.json").read_text()


def test_output_does_not_depend_on_the_number_of_processes(folder):
    one = make_data(*flags_for(folder, "one", "--num_processes=1", "--num_shards=4"))
    two = make_data(*flags_for(folder, "two", "--num_processes=2", "--num_shards=4"))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert len(contents(folder / "one")) == 8  # each with its side file
    assert contents(folder / "one") == contents(folder / "two")
    assert "examples in 4 new shards" in two.stdout


def test_single_sequences_do_not_depend_on_the_number_of_processes_and_are_not_mixed_with_pairs(folder):
    flags = ["--single_sequence", "--num_shards=4"]
    one = make_data(*flags_for(folder, "single one", "--num_processes=1", *flags))
    two = make_data(*flags_for(folder, "single two", "--num_processes=2", *flags))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert contents(folder / "single one") == contents(folder / "single two")
    (note,) = [line for line in one.stderr.splitlines() if "single sequences" in line]
    assert note.startswith("note: ") and "--next_sentence_weight=0" in note
    side = json.loads((folder / "single one" / "part-00000-of-00004.tfrecord.json").read_text())
    assert side["statistics"]["with_one_segment"] == side["statistics"]["records"] == side["examples"] > 0
    assert side["text"]["read"] == side["text"]["kept"]
    pairs = make_data(*flags_for(folder, "single one", "--num_shards=4"))
    assert pairs.returncode == 2 and "made from single_sequence True (now False)" in pairs.stderr


def test_a_single_token_is_a_single_sequence(folder, tmp_path):
    """It is never lost: the passes that make the same record of it are counted."""
    (tmp_path / "a.txt").write_text("alpha\n")
    flags = [f"--input_file={tmp_path}/a.txt", f"--vocab_file={folder}/vocabulary", f"--output_file={tmp_path}/shard"]
    made = make_data(*flags, "--single_sequence")
    assert made.returncode == 0, made.stderr
    side = json.loads((tmp_path / "shard.json").read_text())
    assert side["tokens"] == 1 and side["examples"] >= 1 and side["examples"] + side["repeats"] == 10
    assert f"{side['repeats']} examples that equal another one were left out" in made.stderr
    pairs = make_data(*flags[:2], f"--output_file={tmp_path}/pairs")
    assert pairs.returncode == 2 and "1 tokens of text, but a pair of sentences needs 2" in pairs.stderr


@pytest.mark.horovod
@pytest.mark.skipif(not MPIRUN.exists(), reason="needs mpirun")
def test_output_does_not_depend_on_mpirun(folder):
    launcher = [str(MPIRUN), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "3"]
    ranks = make_data(*flags_for(folder, "ranks", "--mode=exact"), launcher=launcher)
    alone = make_data(*flags_for(folder, "alone", "--mode=exact", "--num_processes=1"))
    assert (ranks.returncode, alone.returncode) == (0, 0), ranks.stderr + alone.stderr
    assert contents(folder / "ranks") == contents(folder / "alone")
    assert ranks.stdout.count("new shards") == 1


def test_work_goes_on_at_the_first_unfinished_shard(folder):
    flags = flags_for(folder, "resumed", "--num_processes=1")
    make_data(*flags)
    before = contents(folder / "resumed")
    stamps = {path.name: path.stat().st_mtime_ns for path in (folder / "resumed").iterdir()}
    (folder / "resumed" / "b.txt.tfrecord").unlink()
    (folder / "resumed" / ".b.txt.tfrecord.99999.partial").write_bytes(b"what a killed process leaves")
    again = make_data(*flags)
    assert again.returncode == 0 and "in 1 new shards, 2 were there" in again.stdout
    assert contents(folder / "resumed") == before
    changed = {p.name for p in (folder / "resumed").iterdir() if p.stat().st_mtime_ns != stamps[p.name]}
    assert changed == {"b.txt.tfrecord", "b.txt.tfrecord.json"}
    other = make_data(*flags, "--dupe_factor=2")
    assert other.returncode == 2 and "made from dupe_factor 10 (now 2)" in other.stderr


def test_text_without_blank_lines_is_remarked_on(folder):
    path = folder / "single.text"
    path.write_text("alpha beta\ngamma delta\n")
    flags = [f"--input_file={path}", f"--vocab_file={folder}/vocabulary", f"--output_file={folder}/single"]
    made = make_data(*flags)
    assert made.returncode == 0 and "is a single document" in made.stderr


def test_data_that_teach_nothing_are_a_fault_at_every_start(folder, tmp_path):
    """Words of 25 pieces, and ten predictions."""
    (tmp_path / "vocabulary").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "##b"]))
    rng = random.Random(0)
    words = ["a" + "".join(rng.choices("ab", k=24)) for _ in range(500)]
    (tmp_path / "a.txt").write_text("\n\n".join("\n".join(words[n : n + 10]) for n in range(0, 500, 10)))
    paths = [f"--input_file={tmp_path}/a.txt", f"--vocab_file={tmp_path}/vocabulary", f"--output_dir={tmp_path}/shards"]
    flags = [*paths, "--do_whole_word_mask", "--max_predictions_per_seq=10", "--max_seq_length=253"]
    for _ in range(2):
        made = make_data(*flags)
        assert made.returncode == 1, made.stderr
        (line,) = [line for line in made.stderr.splitlines() if line.startswith("fault: ")]
        assert "records has a token to predict" in line and "--max_predictions_per_seq" in line
    side = json.loads((tmp_path / "shards" / "a.txt.tfrecord.json").read_text())
    assert side["statistics"]["records"] == side["statistics"]["without_prediction"] == side["examples"] > 0
    assert line in side["findings"]


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_blank_line_after_each_sentence_is_warned_of(folder, tmp_path, mode):
    (tmp_path / "a.txt").write_text((folder / "a.txt").read_text().replace("\n", "\n\n"))
    paths = [f"--input_file={tmp_path}/a.txt", f"--vocab_file={folder}/vocabulary", f"--output_dir={tmp_path}/shards"]
    made = make_data(*paths, "--max_seq_length=32", "--max_predictions_per_seq=5", f"--mode={mode}")
    assert made.returncode == 0, made.stderr
    assert re.search(r"^warning: all of the \d+ second sentences are random.*blank line", made.stderr, re.MULTILINE)
    side = json.loads((tmp_path / "shards" / "a.txt.tfrecord.json").read_text())
    assert side["statistics"]["random_next"] == side["statistics"]["records"] == side["examples"]


def test_a_vocabulary_that_cannot_be_written_is_refused_before_the_text_is_read(folder):
    failed = make_data(f"--input_file={folder}/?.txt", f"--vocab_file={folder}/a.txt/vocabulary", "--train_vocab")
    assert failed.returncode == 2 and failed.stderr.startswith("error: --vocab_file: ") and "B/s" not in failed.stderr


@pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")
def test_text_folders_become_sentences(folder):
    made = make_data("--make_text", f"--input_file={folder}/?.txt", f"--output_dir={folder}/text", "--num_held_out=6")
    assert made.returncode == 0, made.stderr
    assert "text: 60 documents of 360 sentences found in 3 files\ntrain: 54 documents, 324 sentences" in made.stdout
    assert "36 sentences, 0.0 MB, 10.0% of the text" in made.stdout


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--input_file is required, or --demo"),
        (["--input_file={folder}/a.txt"], "--vocab_file is required"),
        (["--input_file={folder}/none*", "--vocab_file={folder}/vocabulary", "--output_dir=x"], "no file matches"),
        (["--input_file={folder}/a.txt", "--vocab_file={folder}/vocabulary"], "give either --output_file"),
        (["--input_file={folder}/a.txt", "--vocab_file={folder}/a.txt", "--output_dir=x"], r"has no [UNK], [CLS]"),
        (["--demo", "--dupe_factor=3"], "--demo has its own settings and takes no --dupe_factor"),
        (["--demo", "--make_text"], "--demo and --make_text are separate steps"),
        (["--max_seq_length=4", "--demo"], "--max_seq_length must be 5 to 65535, got 4"),
        (["--mode=exactly"], "--mode"),
        (["--demo", "--single_sequence", "--mode=exact"], "--single_sequence needs --mode=fast"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(folder, flags, message):
    failed = make_data(*(flag.format(folder=folder) for flag in flags))
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1 and message in failed.stderr
    assert not (PROJECT / "x").exists()


def test_recipe_of_mlperf_is_read(folder):
    flags = [f"--input_file={folder}/a.txt", f"--vocab_file={folder}/vocabulary", f"--output_dir={folder}/mlperf"]
    made = make_data(f"--flagfile={PROJECT}/configs/run/mlperf_data.flags", *flags)
    assert made.returncode == 0, made.stderr
    side = (folder / "mlperf" / "a.txt.tfrecord.json").read_text()
    text = json.loads(side)["text"]
    assert text["read"] == text["kept"] and text["left_out"] == {}
    assert text["read"]["characters"] == sum(map(len, (folder / "a.txt").read_text().split()))
    assert f"text read: {text['read']['documents']} documents" in made.stderr
    for setting in ('"mode": "exact"', '"max_seq_length": 512', '"max_predictions_per_seq": 76', '"dupe_factor": 10'):
        assert setting in side


def test_a_second_command_in_the_same_folder_is_refused(folder):
    output = folder / "in use"
    with locked_directory(str(output), DATA):
        second = make_data(*flags_for(folder, output.name))
    assert (second.returncode, second.stdout) == (2, "")
    *_, line = second.stderr.splitlines()
    assert line.startswith(f"error: --output_dir: {output} is in use: process ") and "makes data there" in line
    assert not output.exists()
