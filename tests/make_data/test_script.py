"""scripts/make_data.sh on a small dump in the format of Wikipedia's."""

import bz2
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.data import schema
from bert_pretrain.data.shards.shard_index import ShardIndex

ROOT = Path(__file__).parents[2]
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split(" ")
DUMP = Path(__file__).parent / "wikipedia" / "dump.xml"

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sentencex", "wikiextractor")),
    reason="needs sentencex and wikiextractor",
)


@pytest.fixture
def run(tmp_path):
    project = tmp_path / "a project"
    for name in ("scripts", "configs"):
        shutil.copytree(ROOT / name, project / name)
    (project / "init_tf.sh").write_text(f'echo init_tf.sh "$@" >&2; echo {sys.executable}\n')
    sizes = {"NUM_SHARDS": "2", "NUM_HELD_OUT": "2", "NUM_EVAL_EXAMPLES": "5", "VOCAB_SIZE": "100", "NP": "2"}
    sizes["TEXT_FLAGS"] = "--documents=blank_line"

    def run_script(*arguments, **variables):
        return subprocess.run(
            ["bash", str(project / "scripts" / "make_data.sh"), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **sizes, **variables},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return run_script


@pytest.mark.slow
def test_a_dump_becomes_shards_and_each_step_goes_on(run, tmp_path):
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(DUMP.read_bytes()))
    flags = ("--max_seq_length=48", "--max_predictions_per_seq=8")
    made = run("dump.xml.bz2", "out put", *flags)
    assert made.returncode == 0, made.stderr
    out = tmp_path / "out put"
    text = "\n".join(path.read_text() for path in out.glob("text/*/*.txt"))
    assert text.count("is a political philosophy and movement that rejects hierarchy.\n") == 6
    assert 'Dr. Smith said "it holds" in 1999.\nIt is about 5 km away – so they say.\n' in text  # template expanded
    for absent in ("REDIRECT", "Talk page chatter", "cite book", "A note", "Infobox", "wikitable", "[[", "{{", "<ref"):
        assert absent not in text
    for absent in ("History.", "See also", "formula_1", "a comment", "Category:", "caption"):
        assert absent not in text
    assert len(list(out.glob("text/eval/*.txt"))) == 1
    train, evaluation = (ShardIndex(sorted(map(str, out.glob(f"{part}/*.tfrecord")))) for part in ("train", "eval"))
    assert len(train.paths) == 2 and evaluation.num_records == 5
    assert schema.record_lengths(train.read(np.arange(1))[0], "it") == (48, 8)

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    Path(train.paths[1]).unlink()
    again = run("dump.xml.bz2", "out put", *flags)
    assert again.returncode == 0, again.stderr
    changed = {path.name for path in stamps if path.stat().st_mtime_ns != stamps[path]}
    assert changed == {"part-00001-of-00002.tfrecord", "part-00001-of-00002.tfrecord.json", "manifest.json"}

    for part in ("train", "eval"):  # other records of the same text; exact mode, of a dump's eval/, makes pairs alone
        shutil.rmtree(out / part)
    single = run("dump.xml.bz2", "out put", *flags, "--single_sequence")
    assert single.returncode == 0, single.stderr
    assert "single sequences: no record has a second sentence" in single.stdout
    assert ShardIndex(sorted(map(str, out.glob("eval/*.tfrecord")))).num_records == 5


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text").mkdir()
    rng = random.Random(0)
    for number in range(3):
        documents = [". ".join(" ".join(rng.choices(WORDS, k=9)).capitalize() for _ in range(9)) for _ in range(9)]
        (tmp_path / "text" / f"{number}.txt").write_text("\n\n".join(documents))
    return tmp_path / "text"


@pytest.mark.slow
def test_too_many_shards_are_refused_with_the_largest_number_and_nothing_need_be_held_out(run, folder, tmp_path):
    flags = ("text", "out", "--max_seq_length=32", "--max_predictions_per_seq=3")
    refused = run(*flags, NUM_HELD_OUT="0", NUM_SHARDS="90")
    *_, message = refused.stderr.splitlines()
    assert refused.returncode == 2 and "too few documents for 90 outputs" in message and "NUM_SHARDS" in message
    assert not (tmp_path / "out" / "vocab.txt").exists(), "it is refused before the vocabulary is trained"
    largest = message.partition("outputs; ")[2].partition(" is the largest")[0]
    made = run(*flags, NUM_HELD_OUT="0", NUM_SHARDS=largest)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "NUM_HELD_OUT=0: no text is held out, so out gets no eval folder\n" in made.stderr
    assert len(list((tmp_path / "out" / "train").glob("*.tfrecord"))) == int(largest) > 9
    assert not (tmp_path / "out" / "eval").exists() and not (tmp_path / "out" / "text" / "eval").exists()


def test_a_folder_of_text_works_as_well_whatever_the_names_are(run, folder, tmp_path):
    """Beside them lie folders that the names would match as patterns, and modules that the steps import."""
    for decoy in ("p1/text", "out 8,/text/train", "out [8]"):
        (tmp_path / decoy).mkdir(parents=True)
        (tmp_path / decoy / "decoy.txt").write_text("No name means this text.\n\nNor this one.\n")
    for module in ("tqdm", "crc32c", "numpy", "runpy" if sys.version_info >= (3, 11) else "absl"):
        (tmp_path / f"{module}.py").write_text("open('executed', 'w').close()\n")
    (tmp_path / "p[1]").mkdir()
    folder.rename(tmp_path / "p[1]" / "text")
    sizes = {"NUM_SHARDS": "", "VOCAB_SIZE": ""}
    made = run("p[1]/text", "out [8],", "--max_seq_length=32", "--max_predictions_per_seq=1", **sizes)
    assert made.returncode == 0, made.stdout + made.stderr
    assert (made.stdout + made.stderr).count("note: 3") == 1, "the share of predictions is told once, at the end"
    assert made.stderr.startswith("init_tf.sh --print-python --data\n")
    texts = list((tmp_path / "out [8]," / "text" / "train").glob("*.txt"))
    assert 5_000 < sum(path.stat().st_size for path in texts) < 20_000
    # a shard, and 1,000 entries more than seven times the root of the bytes
    assert re.search(r"^out \[8\],: 1 shards, a vocabulary of 1[4-9]\d\d entries$", made.stderr, re.MULTILINE)
    assert "verdict: sound" in made.stdout
    (shard,) = (tmp_path / "out [8]," / "train").glob("*.tfrecord")
    used = json.loads(shard.with_name(f"{shard.name}.json").read_text())["origin"]["text"]
    assert {one["name"] for one in used} == {path.name for path in texts}
    assert not (tmp_path / "executed").exists()


def test_a_message_names_the_variable_that_gave_the_flag(run, folder):
    refused = run("text", "out", VOCAB_SIZE="2", NUM_HELD_OUT="0")
    assert refused.returncode == 2
    assert "--vocab_size comes from the variable VOCAB_SIZE" in refused.stderr.splitlines()[-1]


def test_without_arguments_it_says_how(run):
    told = run()
    assert told.returncode == 2 and "make_data.sh SOURCE OUTPUT_DIR" in told.stderr
    assert "shellcheck" not in told.stderr


@pytest.mark.parametrize(
    "flags, variables, message",
    [
        (["--dupe_factor=0"], {}, "--dupe_factor must be at least 1"),
        (["--no_such_flag=1"], {}, "no_such_flag"),
        ([], {"TEXT_FLAGS": "--language=xx"}, "--language=xx is not known"),
        ([], {"VOCAB_FILE": "text/0.txt"}, "text/0.txt has no [UNK]"),
        ([], {"VOCAB_FILE": "text/0.txt/vocab.txt"}, "VOCAB_FILE: text/0.txt/vocab.txt cannot be written"),
        ([], {"VOCAB_SIZE": "many"}, "VOCAB_SIZE=many is no number"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_before_the_first(run, folder, tmp_path, flags, variables, message):
    refused = run("text", "out", *flags, **variables)
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out" / "text").exists()


def test_a_failing_step_stops_the_script(run, tmp_path):
    failed = run("nothing", "out")
    assert failed.returncode == 2 and "nothing: no such file or folder" in failed.stderr
