"""Shards in a bucket: found, indexed, read by ranges and copied, with and without errors on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.data.order import BLOCK, Order
from bert_pretrain.data.shards import index_tables, offsets, shard_files, tfrecord
from bert_pretrain.data.shards.index_tables import ALONE, Share
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.storage import remote
from bert_pretrain.storage.file_cache import FileCache
from tests.storage import servers

servers.require()
SIZES = [200, 1, 150]
RANDOM_FAULTS = ("503", "500", "reset", "truncated", "wrong bytes")


def record(shard: int, number: int) -> bytes:
    return f"record {number} of {shard}, ".encode() * (1 + (7 * number + shard) % 5)


RECORDS = [record(shard, number) for shard, size in enumerate(SIZES) for number in range(size)]


@pytest.fixture(autouse=True)
def _small_pieces(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(offsets, "_PART_BYTES", 3000)


@pytest.fixture
def paths(put) -> list[str]:
    return [
        put(f"data/part-{shard}", b"".join(tfrecord.frame_record(record(shard, number)) for number in range(size)))
        for shard, size in enumerate(SIZES)
    ]


def every_third(number: int, path: str):
    return RANDOM_FAULTS[number // 3 % len(RANDOM_FAULTS)] if number % 3 == 1 else None


def test_shards_are_found_as_in_a_local_directory(bucket, paths, put, tmp_path, capsys) -> None:
    put("data/manifest.json", b"{}")
    put("data/.hidden", b"x")
    assert find_shards([f"{bucket}/data"]) == paths
    assert find_shards([f"{bucket}/data/"]) == paths
    local = tmp_path / "local"
    local.mkdir()
    tfrecord.write_shard(str(local / "own"), [b"one"])
    both = find_shards([f"{bucket}/data", str(local)])
    assert both == [*paths, str(local / "own")]
    assert ShardIndex(both).read(np.array([351, 0])) == [b"one", RECORDS[0]]
    url = put("data/stray", b"no shard at all")
    with pytest.raises(ValueError, match=f"^{url}: not a TFRecord file"):
        find_shards([f"{bucket}/data"])
    put("data/zero", b"")
    assert find_shards([f"{bucket}/data"], skip_unreadable=True) == paths
    assert f"left out {url}: not a TFRecord file" in capsys.readouterr().err


def test_a_missing_bucket_or_directory_is_one_line(bucket) -> None:
    for url in ("s3://no-such-bucket-here/x", f"{bucket}/nothing"):
        with pytest.raises(ValueError, match=f"^{url}: no such bucket or directory"):
            find_shards([url])


def test_the_data_set_is_the_same_as_on_a_disk(paths, tmp_path) -> None:
    local = [str(tmp_path / os.path.basename(path)) for path in paths]
    for url, path in zip(paths, local):
        Path(path).write_bytes(remote.read_small(url))
    here, there = ShardIndex(local), ShardIndex(paths)
    assert there.fingerprint == here.fingerprint
    assert there.records_per_shard == here.records_per_shard == SIZES
    everything = np.arange(len(RECORDS))
    assert there.sizes(everything).tolist() == here.sizes(everything).tolist()
    assert there.read(everything) == here.read(everything) == RECORDS
    assert there.locate(200) == (paths[1], 0, 0)


@pytest.mark.parametrize("fault", [None, *servers.FAULTS, "all"])
def test_no_error_gives_another_byte(paths, proxy, fault) -> None:
    proxy.choose = every_third if fault == "all" else lambda number, path: fault if number % 4 == 1 else None
    index = ShardIndex(paths)
    order = Order(index.records_per_shard, seed=1)
    index.will_need(order.pool_blocks(order.pool(0)))
    for start in range(0, 700, 35):
        records = order.records(start, start + 35)
        assert index.read(records) == [RECORDS[number] for number in records]
    assert fault is None or sum(proxy.faults.values()) >= 3


def test_a_second_start_reads_no_shard_again(paths, proxy) -> None:
    ShardIndex(paths)
    before = proxy.num_gets
    ShardIndex(paths, Share(1, 2))
    assert proxy.num_gets == before


def test_blocks_that_were_announced_are_fetched_once(paths, proxy) -> None:
    index = ShardIndex(paths)
    order = Order(index.records_per_shard, seed=1)
    blocks = order.pool_blocks(order.pool(0))
    before = proxy.num_gets
    index.will_need(blocks)
    for _ in range(2):
        for start in range(0, len(RECORDS), 50):
            index.read(order.records(start, start + 50))
    assert proxy.num_gets - before == len(blocks.first) == sum(-(-size // BLOCK) for size in SIZES)


def test_a_damaged_shard_is_named_with_the_byte(put, proxy) -> None:
    frames = [tfrecord.frame_record(record(0, number)) for number in range(100)]
    begin = sum(map(len, frames[:60]))
    content = bytearray(b"".join(frames))
    content[begin + 14] ^= 1
    url = put("data/bad", bytes(content))
    with pytest.raises(ValueError, match=f"^{url}: .*record at byte {begin} is damaged"):
        ShardIndex([url])
    cut = put("data/cut", b"".join(frames)[:-3])
    last = sum(map(len, frames[:-1]))
    with pytest.raises(ValueError, match=f"^{cut}:{last}: .*cut short"):
        ShardIndex([cut])


def test_a_replaced_shard_is_named(paths, put) -> None:
    index = ShardIndex(paths)
    put("data/part-2", b"".join(tfrecord.frame_record(record(5, number)) for number in range(150)))
    with pytest.raises(ValueError, match=f"^{paths[2]}: .*replaced"):
        index.read(np.array([202, 300]))


def test_a_storage_that_stays_away_is_one_line(paths, proxy, monkeypatch) -> None:
    index = ShardIndex(paths)
    monkeypatch.setattr("bert_pretrain.storage.remote.TRIES", 2)
    proxy.choose = lambda number, path: "500"
    with pytest.raises(ValueError, match=f"^{paths[2]}:0: cannot be read .*2 tries failed"):
        index.read(np.array([201]))
    proxy.choose = lambda number, path: None
    assert index.read(np.array([201])) == [RECORDS[201]]


def test_the_manifest_is_enforced(bucket, paths, put) -> None:
    index = ShardIndex(paths)
    names = {os.path.basename(file.path): file.num_records for file in index.files}
    state = shard_files.Manifest(351, 512, 76, 1, index.fingerprint, names)
    directory = f"{bucket}/data"
    assert shard_files.read_manifest(directory) is None
    put("data/manifest.json", shard_files.json.dumps(state._asdict()).encode())
    shard_files.enforce_manifest(directory, shard_files.in_directory(index.files, directory), 512, 76)
    with pytest.raises(ValueError, match=r"the data differ from manifest\.json"):
        shard_files.enforce_manifest(directory, index.files[:2], 512, 76)


def test_a_cache_holds_whole_shards_and_a_second_start_asks_for_none(paths, proxy, tmp_path) -> None:
    cache = FileCache(str(tmp_path / "copies"), 10**6)
    proxy.choose = every_third
    assert ShardIndex(paths, cache=cache).read(np.arange(len(RECORDS))) == RECORDS
    assert sum(name.endswith(".copy") for name in os.listdir(tmp_path / "copies")) == 3
    before = proxy.num_gets
    again = ShardIndex(paths, Share(1, 2), FileCache(str(tmp_path / "copies"), 10**6))
    assert again.read(np.arange(len(RECORDS))) == RECORDS
    assert proxy.num_gets == before


def test_a_shard_without_room_is_read_by_ranges(paths, tmp_path) -> None:
    sizes = [remote.describe_file(path).num_bytes for path in paths]
    cache = FileCache(str(tmp_path / "copies"), sizes[0] + sizes[1] + 10)
    assert ShardIndex(paths, cache=cache).read(np.arange(len(RECORDS))) == RECORDS
    assert sum(name.endswith(".copy") for name in os.listdir(tmp_path / "copies")) == 2


@pytest.mark.parametrize("harm", ["removed", "damaged", "cut short"])
def test_a_copy_that_is_lost_is_replaced_by_the_storage(paths, tmp_path, harm) -> None:
    index = ShardIndex(paths, cache=FileCache(str(tmp_path / "copies"), 10**6))
    for name in os.listdir(tmp_path / "copies"):
        path = tmp_path / "copies" / name
        if harm == "removed":
            path.unlink()
        elif harm == "damaged":
            path.write_bytes(bytes(path.stat().st_size))
        else:
            path.write_bytes(path.read_bytes()[:-5])
    assert index.read(np.arange(len(RECORDS))) == RECORDS


def test_the_tables_of_a_local_shard_need_no_library_of_a_storage(tmp_path, monkeypatch) -> None:
    path = str(tmp_path / "own")
    tfrecord.write_shard(path, [b"one"])
    monkeypatch.setattr(remote, "_filesystem", None)
    assert index_tables.load_tables([path], ALONE).remote == [None]
