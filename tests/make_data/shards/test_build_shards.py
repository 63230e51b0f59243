import json
import os
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data import schema
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.shards import build_shards, instances
from tests.make_data import killed

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(200))]
CONFIG = ExampleConfig(max_seq_length=32, max_predictions_per_seq=5, dupe_factor=2, mode="fast")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "vocabulary").write_text("\n".join(WORDS))
    for name in "abc":
        documents = [
            "\n".join(" ".join(rng.choice(WORDS[5:], rng.integers(2, 9))) for _ in range(rng.integers(1, 9)))
            for _ in range(12)
        ]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(documents))
    return tmp_path


def make(tasks):
    return [build_shards.make_shards(task, lambda progress: None) for task in tasks]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def in_directory(folder, num_shards=0, config=CONFIG, output="shards"):
    spans = corpus.find_text(f"{folder}/*?.txt")
    return build_shards.tasks_for_directory(spans, str(folder / output), num_shards, str(folder / "vocabulary"), config)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_shard_for_each_file(folder, mode):
    tasks = in_directory(folder, config=ExampleConfig(max_seq_length=32, max_predictions_per_seq=5, mode=mode))
    counts = make(tasks)
    paths = [f"{folder}/shards/{name}.txt.tfrecord" for name in "abc"]
    index = ShardIndex(paths)
    assert index.records_per_shard == [count.examples for count in counts]
    assert all(count.documents == 12 for count in counts)
    record = index.read(np.arange(1))[0]
    assert schema.record_lengths(record, "it") == (32, 5)
    assert json.loads(Path(paths[0] + ".json").read_text())["examples"] == counts[0].examples


def test_text_is_divided_for_a_number_of_shards(folder):
    tasks = in_directory(folder, num_shards=5)
    assert [Path(task.outputs[0]).name for task in tasks][:2] == [
        "part-00000-of-00005.tfrecord",
        "part-00001-of-00005.tfrecord",
    ]
    assert sum(count.documents for count in make(tasks)) == 36


def test_finished_shards_are_kept(folder):
    tasks = in_directory(folder)
    make(tasks[1:2])
    assert build_shards.unfinished_tasks(tasks) == [tasks[0], tasks[2]]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_killed_process_leaves_nothing_that_is_refused(folder, mode):
    config = ExampleConfig(max_seq_length=32, max_predictions_per_seq=5, dupe_factor=1, mode=mode)
    tasks = in_directory(folder, num_shards=1, config=config)
    make(tasks)
    (shard,) = tasks[0].outputs
    whole = contents(folder / "shards")
    for num_renames in (1, 2):  # the shard and its side file
        os.remove(shard)
        os.remove(f"{shard}.json")
        assert killed.run(build_shards.make_shards, tasks[0], num_renames)
        make(build_shards.unfinished_tasks(tasks))
        assert contents(folder / "shards") == whole and not build_shards.unfinished_tasks(tasks)


def test_a_fast_shard_depends_on_its_name_and_text_alone(folder):
    one = in_directory(folder)
    make(one)
    (folder / "a.txt").rename(folder / "z.txt")
    make(in_directory(folder, output="others"))
    name = "b.txt.tfrecord"
    assert (folder / "shards" / name).read_bytes() == (folder / "others" / name).read_bytes()
    assert (folder / "shards" / name).read_bytes() != (folder / "shards" / "c.txt.tfrecord").read_bytes()


def test_text_larger_than_a_block_is_made_in_blocks(folder, monkeypatch):
    whole = make(in_directory(folder, num_shards=1))[0]
    monkeypatch.setattr(instances, "_CHARS_AT_ONCE", 200)
    monkeypatch.setattr(build_shards, "_TOKENS_AT_ONCE", 100)
    blocks = make(in_directory(folder, num_shards=1, output="blocks"))[0]
    assert (blocks.documents, blocks.tokens) == (whole.documents, whole.tokens)
    assert blocks.examples == pytest.approx(whole.examples, rel=0.1)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_picked_examples_stand_at_equal_distances(folder, mode):
    settings = {"max_seq_length": 32, "max_predictions_per_seq": 5, "mode": mode}
    everything, picked = (
        in_directory(folder, 1, ExampleConfig(num_picked_examples=number, **settings), output=f"picked{number}")
        for number in (0, 7)
    )
    total = make(everything)[0].examples
    assert make(picked)[0].examples == 7
    all_records = ShardIndex(list(everything[0].outputs)).read(np.arange(total))
    seven = ShardIndex(list(picked[0].outputs)).read(np.arange(7))
    assert seven == [all_records[int(number * total / 7)] for number in range(7)]
    too_many = in_directory(folder, 1, ExampleConfig(num_picked_examples=10**6, **settings), output="more")
    assert make(too_many)[0].examples == total


def test_equal_names_are_refused(folder):
    (folder / "more").mkdir()
    (folder / "more" / "a.txt").write_text("w1 w2")
    spans = corpus.find_text(f"{folder}/a.txt,{folder}/more/a.txt")
    with pytest.raises(ValueError, match=r"two files are named a\.txt"):
        build_shards.tasks_for_directory(spans, "out", 0, "vocab.txt", CONFIG)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"w1 w2\n\xff\xfe\n", "byte 6 is not UTF-8"),
        (b"\n \n\x00\n", "0 tokens of text"),
        (b"w1", "1 tokens of text"),
    ],
)
def test_unusable_text_leaves_nothing(folder, mode, content, message):
    (folder / "a.txt").write_bytes(content)
    config = ExampleConfig(max_seq_length=32, max_predictions_per_seq=5, mode=mode)
    task = in_directory(folder, config=config)[0]
    with pytest.raises(ValueError, match=message):
        make([task])
    assert list((folder / "shards").iterdir()) == []


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_document_of_one_word_and_a_long_line_are_fine(folder, mode):
    (folder / "a.txt").write_text("w1\n\n" + "w2 w3 " * 50_000 + "\n\nw4")
    config = ExampleConfig(max_seq_length=32, max_predictions_per_seq=5, dupe_factor=1, mode=mode)
    counts = make(in_directory(folder, config=config)[:1])[0]
    assert (counts.documents, counts.tokens, counts.examples) == (3, 100_002, 3)


def test_an_output_that_cannot_be_written_is_named(folder):
    (folder / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"a\.txt\.tfrecord: cannot be written"):
        make(in_directory(folder, output="file/shards"))
