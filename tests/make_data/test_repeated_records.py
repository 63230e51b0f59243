"""Fast mode writes no record twice for one block of text."""

from collections import Counter

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.make_data import build_shards
from bert_pretrain.make_data.repeated_records import RepeatedRecords

CONFIG = ExampleConfig(max_seq_length=64, max_predictions_per_seq=10, dupe_factor=40)


def test_short_documents_give_no_record_twice(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(60))]
    (tmp_path / "vocabulary").write_text("\n".join(words))
    documents = [f"w{3 * number} w{3 * number + 1}\nw{3 * number + 2}" for number in range(20)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    spans, output = build_shards.find_text(str(tmp_path / "text.txt")), str(tmp_path / "shard")
    (task,) = build_shards.tasks_for_files(spans, [output], str(tmp_path / "vocabulary"), CONFIG)
    counts = build_shards.make(task, lambda done: None)
    index = ShardIndex([output])
    records = index.read(np.arange(counts.examples))
    assert max(Counter(map(bytes, records)).values()) == 1
    assert counts.repeats > 100, "40 passes over documents of three tokens repeat themselves"


def test_only_equal_records_of_a_block_are_left_out():
    repeated = RepeatedRecords()
    repeated.begin_block()
    assert list(repeated.without_repeats([b"a", b"b", b"a", b"ab"], [True] * 4)) == [b"a", b"b", b"ab"]
    assert list(repeated.without_repeats([b"b", b"c"], [True] * 2)) == [b"c"]
    repeated.begin_block()
    assert list(repeated.without_repeats([b"a"], [True])) == [b"a"]
    assert list(repeated.without_repeats([b"d", b"d"], [False] * 2)) == [b"d", b"d"], "not compared"
    assert (repeated.num_kept, repeated.num_left_out) == (7, 2)
