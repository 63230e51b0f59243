"""Exact mode equals google-research/bert's create_pretraining_data.py, which runs as published in one subprocess.

Byte for byte where its protobuf writes the order of serialization.py; with other protobufs the order of a record's
features varies from run to run, so the records are compared with their features sorted.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import google.protobuf
import pytest
import tensorflow as tf
from google.protobuf.internal import api_implementation

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.make_data.corpus import find_text
from bert_pretrain.make_data.shards import build_shards
from bert_pretrain.make_data.shards.exact_examples import MemoryNeed

REFERENCE = Path(__file__).parents[2] / "references" / "google_data.py"
# upb, protobuf's runtime for Python since 4.21, has hashed with another seed in each process since 6.
HAS_FIXED_ORDER = api_implementation.Type() == "upb" and 4 <= int(google.protobuf.__version__.partition(".")[0]) < 6
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SYLLABLES = ["ba", "lo", "mi", "ter", "sun", "ro", "ka", "pe"]


def english(rng):
    """Ordinary text: sentences of 3 to 30 words, documents of 1 to 40 sentences."""

    def sentence():
        words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(rng.randint(3, 30))]
        return f"{' '.join(words).capitalize()}{rng.choice(['.', '!', ', and so on.'])}"

    return ["\n\n".join("\n".join(sentence() for _ in range(rng.randint(1, 40))) for _ in range(25)) + "\n"]


def hard_characters(rng):
    """Scripts, accents, control characters, ideographs and words that are too long, in three files."""
    alphabet = [
        "é",
        "É",
        "Σ",
        "σ",
        "İ",
        "ß",
        "中",
        "文",
        "한",
        "か",
        "が",
        "😀",
        "\u200d",
        "\u00a0",
        "\u2028",
        "\x1c",
        "\r",
    ]
    alphabet += ["\x00", "\ufeff", "\ufffd", "\ue000", "\u0301", " ", " ", " ", "ba", "Lo", "mi", ".", "$", "[MASK]"]

    def document():
        lines = ["".join(rng.choices(alphabet, k=rng.randint(1, 80))) for _ in range(rng.randint(1, 12))]
        return "\n".join([*lines, "ba" * 101 + " lo", "x" * 201])

    return ["\n\n".join(document() for _ in range(8)) for _ in range(3)]  # no file ends with a line feed


def odd_shapes(rng):
    """Documents of one word, of one long sentence, runs of blank lines, lines of white space and of nothing visible."""
    parts = ["ba", "\n\n\n", "lo mi\n \t \nter", "\n\u200b\n", " ".join(rng.choices(SYLLABLES, k=700)), "\r\n\r\n"]
    parts += ["\n".join(rng.choices(SYLLABLES, k=90)), "\n\n", "ka\n", "\n" * 5, "pe ro\nsun"]
    return ["\n".join(parts), "tersun\n\nmimi"]


CORPORA = {"english": english, "hard": hard_characters, "odd": odd_shapes}
FLAG_SETS = {
    "phase1": {"max_seq_length": 128, "max_predictions_per_seq": 20, "dupe_factor": 3, "outputs": 1},
    "mlperf": {"max_seq_length": 512, "max_predictions_per_seq": 76, "outputs": 1},
    "words": {
        "max_seq_length": 128,
        "max_predictions_per_seq": 20,
        "do_whole_word_mask": True,
        "vocabulary": "repeated",
        "random_seed": 7,
        "dupe_factor": 4,
        "outputs": 3,
    },
    "words_512": {
        "max_seq_length": 512,
        "max_predictions_per_seq": 76,
        "do_whole_word_mask": True,
        "do_lower_case": False,
        "dupe_factor": 2,
        "outputs": 2,
    },
    "short": {
        "max_seq_length": 17,
        "max_predictions_per_seq": 30,
        "masked_lm_prob": 0.31,
        "vocabulary": "repeated",
        "short_seq_prob": 0.6,
        "random_seed": 0,
        "do_lower_case": False,
        "dupe_factor": 2,
        "outputs": 2,
    },
}


NOT_SCRIPT_FLAGS = ("do_whole_word_mask", "outputs", "vocabulary")  # that the published script has


def write_vocabularies(folder):
    """Writes vocab.plain.txt, and vocab.repeated.txt with some of its lines twice."""
    vocabulary = [*SPECIAL, *SYLLABLES, *(f"##{part}" for part in SYLLABLES), "##a", "a", ".", ",", "!", "$", "[", "]"]
    vocabulary += ["mask", "MASK", "e", "##e", "É", "σ", "中", "か", "Lo", "Ba", "and", "so", "on", "ß", "s", "i"]
    vocabulary += [f"[unused{number}]" for number in range(120)]  # so that ids take two bytes
    (folder / "vocab.plain.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    repeated = [*vocabulary[:9], "[MASK]", *vocabulary[9:], *SYLLABLES[2:5], "", "##lo", "##lo", "[SEP]"]
    (folder / "vocab.repeated.txt").write_text("\n".join(repeated) + "\n", encoding="utf-8")


def vocabulary_of(flags):
    return f"vocab.{flags.get('vocabulary', 'plain')}.txt"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with each corpus, and with Google's files for each flag set."""
    pytest.importorskip("bert.create_pretraining_data", reason="needs bert-tensorflow==1.0.4")
    folder = tmp_path_factory.mktemp("made")
    write_vocabularies(folder)
    cases = []
    for corpus, write in CORPORA.items():
        texts = write(random.Random(corpus))
        # Named one by one: a pattern gives Google's script the files in the order of the directory, ours are sorted.
        paths = [f"{folder}/{corpus}.{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts):
            Path(path).write_bytes(text.encode())
        cases += [
            ["--do_whole_word_mask"] * flags.get("do_whole_word_mask", False)
            + [f"--{key}={value}" for key, value in flags.items() if key not in NOT_SCRIPT_FLAGS]
            + [f"--vocab_file={folder}/{vocabulary_of(flags)}", f"--input_file={','.join(paths)}"]
            + [f"--output_file={','.join(outputs(folder, 'google', corpus, name, flags))}"]
            for name, flags in FLAG_SETS.items()
        ]
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, str(REFERENCE), str(folder / "cases.json")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder


def outputs(folder, maker, corpus, name, flags):
    return [f"{folder}/{maker}.{corpus}.{name}.{number}" for number in range(flags["outputs"])]


@pytest.mark.parametrize("name", FLAG_SETS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_shards_equal_googles(made, corpus, name):
    flags = FLAG_SETS[name]
    config = ExampleConfig(
        mode="exact", **{key: value for key, value in flags.items() if key not in ("outputs", "vocabulary")}
    )
    ours, theirs = (outputs(made, maker, corpus, name, flags) for maker in ("ours", "google"))
    spans = find_text(f"{made}/{corpus}.*.txt")
    (task,) = build_shards.tasks_for_files(spans, ours, str(made / vocabulary_of(flags)), config)
    counts = build_shards.make_shards(task, lambda progress: None)
    assert counts.examples > 0
    for one, other in zip(ours, theirs):
        if HAS_FIXED_ORDER:
            assert Path(one).read_bytes() == Path(other).read_bytes()
        else:
            assert Path(one).stat().st_size == Path(other).stat().st_size
            assert sorted_features(one) == sorted_features(other)


def sorted_features(path):
    records = tf.data.TFRecordDataset(path).as_numpy_iterator()
    return [tf.train.Example.FromString(record).SerializeToString(deterministic=True) for record in records]


def tasks_of(folder, num_bytes, mode="exact"):
    """A shard of a sparse file of num_bytes that begins with 3.5 MB of text."""
    (folder / "vocabulary").write_text("\n".join([*SPECIAL, "one", "two"]))
    text = "\n\n".join(["one two two one two\ntwo one one one"] * 100_000) + "\n\n"
    with open(folder / "text.txt", "w", encoding="utf-8") as file:
        file.write(text)
        file.truncate(num_bytes)
    spans = find_text(str(folder / "text.txt"))
    config = ExampleConfig(max_seq_length=64, max_predictions_per_seq=10, mode=mode)
    return build_shards.tasks_for_files(spans, [str(folder / "shard")], str(folder / "vocabulary"), config)


def test_too_much_text_for_a_shard_is_refused_with_a_remedy(tmp_path):
    tasks = tasks_of(tmp_path, 2_000_000_000)
    with pytest.raises(ValueError, match=r"2\.00 GB of text need about .* GB of memory.*--num_shards=\d+ needs less"):
        build_shards.require_memory(tasks, 2.0)
    build_shards.require_memory(tasks, 100.0)


def test_fast_mode_and_little_text_need_no_more_than_the_smallest_limit(tmp_path):
    build_shards.require_memory(tasks_of(tmp_path, 400_000_000, "fast"), 0.6)
    build_shards.require_memory(tasks_of(tmp_path, 4_000_000), 0.6)


def test_the_number_of_shards_that_is_named_is_enough():
    need = MemoryNeed(bytes_per_byte=2.5)
    for num_bytes in (10**9, 4 * 10**10):
        num_shards = need.num_shards(num_bytes, 2e9)
        assert need.of(num_bytes // num_shards) < 2e9
        need.require("shard", num_bytes // num_shards, num_bytes, 2.0)
