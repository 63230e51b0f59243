import json

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import schema
from bert_pretrain.data.shards import tfrecord
from bert_pretrain.make_data import demo, demo_text
from bert_pretrain.make_data.demo import DemoSettings, make_demo

SETTINGS = DemoSettings(vocab_size=400, max_seq_length=32, max_predictions_per_seq=5, dupe_factor=2)


@pytest.fixture(autouse=True)
def short_text(monkeypatch):
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "some", "dogs", "ran", "over", "green", "hills"]
    rng = np.random.default_rng(3)
    documents = [[" ".join(rng.choice(words, 8)) + "." for _ in range(6)] for _ in range(40)]
    monkeypatch.setattr(demo_text, "demo_documents", lambda: documents)


def records(path):
    return [raw.numpy() for raw in tf.data.TFRecordDataset(str(path))]


def test_demo_is_complete_data_for_a_run(tmp_path):
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


def test_complete_demo_is_kept_and_damaged_demo_is_made_again(tmp_path):
    make_demo(str(tmp_path), SETTINGS)
    shard = tmp_path / "train" / "part-00003-of-00008.tfrecord"
    content, made = shard.read_bytes(), shard.stat().st_mtime_ns
    make_demo(str(tmp_path), SETTINGS)
    assert shard.stat().st_mtime_ns == made
    shard.write_bytes(content[:100])
    make_demo(str(tmp_path), SETTINGS)
    assert shard.read_bytes() == content


def test_interrupted_demo_is_made_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(demo, "write_shard", lambda path, records: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make_demo(str(tmp_path), SETTINGS)
    make_demo(str(tmp_path), SETTINGS)
    assert len(list((tmp_path / "train").iterdir())) == 8


def test_other_settings_make_other_data(tmp_path):
    make_demo(str(tmp_path), SETTINGS)
    make_demo(str(tmp_path), SETTINGS._replace(max_seq_length=16, num_train_shards=3))
    paths = sorted((tmp_path / "train").iterdir())
    assert len(paths) == 3
    assert schema.record_lengths(records(paths[0])[0], "it") == (16, 5)


def test_shards_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.tfrecord").write_bytes(tfrecord.frame_record(b"mine"))
    with pytest.raises(ValueError, match="not the demo's"):
        make_demo(str(tmp_path), SETTINGS)
    assert (tmp_path / "train" / "mine.tfrecord").read_bytes() == tfrecord.frame_record(b"mine")
