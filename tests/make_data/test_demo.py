"""The embedded demo: its data, and its text."""

import json

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import schema
from bert_pretrain.data.shards import tfrecord
from bert_pretrain.make_data import demo
from bert_pretrain.make_data.demo import DemoSettings, make_demo

SETTINGS = DemoSettings(vocab_size=400, max_seq_length=32, max_predictions_per_seq=5, dupe_factor=2)
SOURCE = '''"""A module about cats. It says what they do all day, e.g. sleeping in the sun.

    >>> cats()
    3

Names of parameters: {x: 1}

Cats do not bark at the moon.
"""
def f():
    """Return the number of all cats! Raises nothing at all."""
'''


@pytest.fixture
def short_text(monkeypatch):
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "some", "dogs", "ran", "over", "green", "hills"]
    rng = np.random.default_rng(3)
    documents = [[" ".join(rng.choice(words, 8)) + "." for _ in range(6)] for _ in range(40)]
    monkeypatch.setattr(demo, "demo_documents", lambda: documents)


def records(path):
    return [raw.numpy() for raw in tf.data.TFRecordDataset(str(path))]


def test_demo_is_complete_data_for_a_run(tmp_path, short_text):
    counts = make_demo(str(tmp_path), SETTINGS)
    config = json.loads((tmp_path / "bert_config.json").read_text())
    assert config["vocab_size"] == len((tmp_path / "vocab.txt").read_text().splitlines()) <= 400
    assert (counts["train"]["documents"], counts["eval"]["documents"]) == (36, 4)
    for split, num_shards in (("train", 8), ("eval", 2)):
        paths = sorted((tmp_path / split).iterdir())
        assert len(paths) == num_shards
        found = [record for path in paths for record in records(path)]
        assert len(found) == counts[split]["examples"]
        assert all(schema.record_lengths(record, "it") == (32, 5) for record in found)


def test_complete_demo_is_kept_and_damaged_demo_is_made_again(tmp_path, short_text):
    make_demo(str(tmp_path), SETTINGS)
    shard = tmp_path / "train" / "part-00003-of-00008.tfrecord"
    content, made = shard.read_bytes(), shard.stat().st_mtime_ns
    make_demo(str(tmp_path), SETTINGS)
    assert shard.stat().st_mtime_ns == made
    shard.write_bytes(content[:100])
    make_demo(str(tmp_path), SETTINGS)
    assert shard.read_bytes() == content


def test_interrupted_demo_is_made_again(tmp_path, monkeypatch, short_text):
    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_shard", lambda path, records: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_demo(str(tmp_path), SETTINGS)
    make_demo(str(tmp_path), SETTINGS)
    assert len(list((tmp_path / "train").iterdir())) == 8


def test_demo_of_an_older_version_is_kept(tmp_path, short_text):
    make_demo(str(tmp_path), SETTINGS)
    described = json.loads((tmp_path / "demo.json").read_text())
    del described["settings"]["single_sequence"]  # which that version did not know
    (tmp_path / "demo.json").write_text(json.dumps(described))
    shard = tmp_path / "train" / "part-00003-of-00008.tfrecord"
    made = shard.stat().st_mtime_ns
    make_demo(str(tmp_path), SETTINGS)
    assert shard.stat().st_mtime_ns == made


def test_demo_of_single_sequences(tmp_path, short_text):
    make_demo(str(tmp_path), SETTINGS)
    make_demo(str(tmp_path), SETTINGS._replace(single_sequence=True))
    for split in ("train", "eval"):
        for path in (tmp_path / split).iterdir():
            examples = schema.parse_examples(tf.constant(records(path)), ["it"] * len(records(path)), 32, 5)
            assert not examples.segment_ids.numpy().any() and not examples.next_sentence_labels.numpy().any()


def test_other_settings_make_other_data(tmp_path, short_text):
    make_demo(str(tmp_path), SETTINGS)
    make_demo(str(tmp_path), SETTINGS._replace(max_seq_length=16, num_train_shards=3))
    paths = sorted((tmp_path / "train").iterdir())
    assert len(paths) == 3
    assert schema.record_lengths(records(paths[0])[0], "it") == (16, 5)


def test_shards_of_somebody_else_are_not_touched(tmp_path, short_text):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.tfrecord").write_bytes(tfrecord.frame_record(b"mine"))
    with pytest.raises(ValueError, match="not the demo's"):
        make_demo(str(tmp_path), SETTINGS)
    assert (tmp_path / "train" / "mine.tfrecord").read_bytes() == tfrecord.frame_record(b"mine")


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(SOURCE + "\n\n" + SOURCE.replace("cats", "dogs").replace("def f", "def g"))
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "none.py").write_text("x = 1")
    paths = [str(tmp_path / name) for name in ("a.py", "b.py", "bad.py", "none.py")]
    monkeypatch.setattr(demo, "_source_files", lambda: paths)


def test_prose_of_source_files_without_code_and_repetition(files, monkeypatch):
    monkeypatch.setattr(demo, "_language_reference", lambda: iter([]))
    documents = demo.demo_documents(num_processes=1)
    assert documents == [
        [
            "A module about cats.",
            "It says what they do all day, e.g. sleeping in the sun.",
            "Cats do not bark at the moon.",
            "Return the number of all cats!",
            "Raises nothing at all.",
        ]
    ]


def test_the_language_reference_is_text(files):
    documents = demo.demo_documents(num_processes=1)
    assert len(documents) > 40
    assert sum(len(document) for document in documents) > 1000
    assert all(len(document) >= 2 for document in documents)
    sentences = [sentence for document in documents for sentence in document]
    assert len(sentences) == len(set(sentences))
    assert not any(">>>" in sentence or "\n" in sentence for sentence in sentences)


def test_files_of_the_standard_library_are_found_in_order():
    paths = demo._source_files()
    assert paths == demo._source_files() and len(paths) > 500
    assert not any("/test/" in path for path in paths)
    assert any(path.endswith("/argparse.py") for path in paths)
