import concurrent.futures
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data.order import Blocks
from bert_pretrain.data.shards import shard_index
from bert_pretrain.data.shards.index_tables import Share
from bert_pretrain.data.shards.shard_index import Location, ShardIndex
from bert_pretrain.data.shards.tfrecord import write_shard


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def content(shard, number):
    return f"record {number} of {shard}, ".encode() * (1 + (7 * number + shard) % 5)


def write(directory, records_per_shard):
    paths = [str(directory / f"part-{shard}") for shard in range(len(records_per_shard))]
    for shard, num_records in enumerate(records_per_shard):
        write_shard(paths[shard], (content(shard, number) for number in range(num_records)))
    return paths


def flip_bit(path, place):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 8]))


def test_records_are_read_in_the_order_asked_for(directory):
    index = ShardIndex(write(directory, [3, 1, 40]))
    assert index.num_records == 44
    assert index.records_per_shard == [3, 1, 40]
    assert index.read(np.array([43, 0, 3, 10, 11, 12, 2, 9, 0])) == [
        content(2, 39), content(0, 0), content(1, 0), content(2, 6), content(2, 7), content(2, 8), content(0, 2),
        content(2, 5), content(0, 0),
    ]  # fmt: skip
    everything = [content(shard, number) for shard, size in enumerate([3, 1, 40]) for number in range(size)]
    assert index.read(np.arange(44)) == everything
    assert index.read(np.zeros([0], np.int64)) == []


def test_what_tensorflow_reads_is_what_the_index_reads(directory):
    paths = write(directory, [30, 20])
    assert list(tf.data.TFRecordDataset(paths).as_numpy_iterator()) == ShardIndex(paths).read(np.arange(50))


def test_a_record_is_located_by_shard_number_and_byte(directory):
    paths = write(directory, [3, 5])
    index = ShardIndex(paths)
    begin = 16 + len(content(1, 0))
    assert index.locate(4) == Location(paths[1], 1, begin)
    assert index.locate(0) == Location(paths[0], 0, 0)
    assert index.names(np.array([4, 0])) == [f"{paths[1]}:{begin}", f"{paths[0]}:0"]


def test_sizes_are_those_on_disk_in_the_order_asked_for(directory):
    index = ShardIndex(write(directory, [3, 5]))
    asked = [(1, 4), (0, 2), (1, 0), (0, 2)]
    sizes = index.sizes(np.array([7, 2, 3, 2]))
    assert sizes.tolist() == [16 + len(content(shard, number)) for shard, number in asked]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_every_rank_has_the_same_index(directory, rank):
    paths = write(directory, [3, 5, 2])
    assert ShardIndex(paths, Share(rank, 3)).records_per_shard == [3, 5, 2]


@pytest.mark.parametrize("place", ["content", "crc"])
def test_a_flipped_bit_is_named_with_the_byte_of_its_record(directory, place):
    paths = write(directory, [4])
    index = ShardIndex(paths)
    bad = index.locate(2).offset
    end = index.locate(3).offset
    flip_bit(paths[0], bad + 12 if place == "content" else end - 1)
    assert len(index.read(np.array([0, 1, 3]))) == 3
    with pytest.raises(ValueError) as raised:
        index.read(np.array([3, 2, 1, 0]))
    assert str(raised.value).startswith(f"{paths[0]}:{bad}: ")


def test_a_shard_that_shrinks_while_it_is_read_is_named(directory):
    paths = write(directory, [4])
    index = ShardIndex(paths)
    begin = index.locate(3).offset
    os.truncate(paths[0], begin + 5)
    with pytest.raises(ValueError, match=rf"^{paths[0]}:{begin}: the record .* ends at byte {begin + 5};"):
        index.read(np.array([3]))


def test_a_shard_that_disappears_is_named(directory):
    paths = write(directory, [4])
    index = ShardIndex(paths)
    os.remove(paths[0])
    with pytest.raises(ValueError, match=rf"^{paths[0]}: cannot be read \(No such file or directory\)"):
        index.read(np.array([3]))
    with pytest.raises(ValueError, match=rf"^{paths[0]}: cannot be read \(No such file or directory\)"):
        ShardIndex(paths)


def test_files_beyond_the_limit_are_closed(directory, monkeypatch):
    monkeypatch.setattr(shard_index, "_MAX_OPEN_FILES", 2)
    index = ShardIndex(write(directory, [1] * 6))
    before = len(os.listdir("/proc/self/fd"))
    assert index.read(np.arange(6)) == [content(shard, 0) for shard in range(6)]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del index


def test_any_number_of_shards_needs_few_descriptors(directory):
    """Also where tables are mapped, and where something else takes descriptors while the data are read."""
    write(directory, [20000 if shard < 3 else 2 for shard in range(300)])
    code = f"""
import os, resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from bert_pretrain.data.shards import offsets
from bert_pretrain.data.shards.shard_index import ShardIndex
paths = [os.path.join({str(directory)!r}, name) for name in sorted(os.listdir({str(directory)!r}))]
ShardIndex(paths)
offsets.scan = None  # everything is indexed
index = ShardIndex(paths)
everything = np.arange(index.num_records)
assert len(index.read(everything)) == 3 * 20000 + 297 * 2
others = []
try:
    while True:
        others.append(open("/dev/null"))
except OSError:
    assert len(index.read(everything[-400:])) == 400
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def swap(path, records):
    """Replaces a shard by one of the same size and modification time."""
    state = os.stat(path)
    write_shard(path, records)
    assert os.path.getsize(path) == state.st_size
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_replaced_shard_of_the_same_size_and_time_is_read_as_it_is(directory):
    (path,) = write(directory, [4])
    records = [content(0, number) for number in range(4)]
    ShardIndex([path])
    swap(path, records[::-1])
    assert ShardIndex([path]).read(np.arange(4)) == records[::-1]


def test_a_replaced_shard_whose_ends_are_the_same_is_not_called_damaged(directory):
    path = str(directory / "shard")
    records = [b"x" * 5000, b"1", b"22", b"y" * 5000]
    swapped = [records[0], records[2], records[1], records[3]]
    write_shard(path, records)
    index = ShardIndex([path])
    swap(path, swapped)
    with pytest.raises(ValueError, match=rf"^{path}: .*replaced"):
        ShardIndex([path]).read(np.arange(4))
    assert ShardIndex([path]).read(np.arange(4)) == swapped
    with pytest.raises(ValueError, match="replaced"):
        index.read(np.arange(4))


def test_threads_read_the_same(directory, monkeypatch):
    monkeypatch.setattr(shard_index, "_MAX_OPEN_FILES", 2)
    sizes = [5, 6, 7, 8, 9]
    index = ShardIndex(write(directory, sizes))
    expected = [content(shard, number) for shard, size in enumerate(sizes) for number in range(size)]

    def read_often(seed):
        chooser = np.random.RandomState(seed)
        for _ in range(50):
            records = chooser.randint(0, sum(sizes), size=10)
            assert index.read(records) == [expected[record] for record in records]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(read_often, range(4)))


def test_the_fingerprint_tells_data_sets_apart_but_not_places(directory, tmp_path):
    copies = [tmp_path / name for name in ("copy", "other")]
    for copy in copies:
        copy.mkdir()
    index = ShardIndex(write(directory, [3, 2]))
    assert ShardIndex(write(copies[0], [3, 2])).fingerprint == index.fingerprint
    assert ShardIndex(write(copies[1], [3, 1])).fingerprint != index.fingerprint
    assert len(index.fingerprint) == 16


def test_reading_ahead_asks_for_the_bytes_of_the_blocks(directory, monkeypatch):
    index = ShardIndex(write(directory, [10, 10]))
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *span: asked.append(span))
    index.will_need(Blocks(np.array([12, 3]), np.array([8, 2])))
    ends = index.locate(5).offset, os.path.getsize(index.paths[1])
    spans = [(index.locate(3).offset, ends[0]), (index.locate(12).offset, ends[1])]
    assert asked == [(begin, end - begin, os.POSIX_FADV_WILLNEED) for begin, end in spans]
