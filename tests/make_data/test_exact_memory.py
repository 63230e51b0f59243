"""The estimate of exact mode's memory, before any work."""

import pytest

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.make_data import build_shards
from bert_pretrain.make_data.exact_memory import MemoryNeed

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two"]


def tasks_of(folder, num_bytes, mode="exact"):
    """A shard of a sparse file of num_bytes that begins with 3.5 MB of text."""
    (folder / "vocabulary").write_text("\n".join(WORDS))
    text = "\n\n".join(["one two two one two\ntwo one one one"] * 100_000) + "\n\n"
    with open(folder / "text.txt", "w", encoding="utf-8") as file:
        file.write(text)
        file.truncate(num_bytes)
    spans = build_shards.find_text(str(folder / "text.txt"))
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
