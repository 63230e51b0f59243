import concurrent.futures
import gzip
import os

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import shards
from bert_pretrain.data.order import Blocks
from bert_pretrain.data.shards import Location, ShardIndex, find_shards
from bert_pretrain.data.tfrecord import write_shard


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


def test_shards_are_found_by_name_without_hidden_and_side_files(directory):
    paths = write(directory, [1, 2, 3])
    (directory / ".part-0.swp").write_text("hidden")
    (directory / "manifest.json").write_text("{}")
    (directory / "cache.npz").write_text("ours")
    (directory / "folder").mkdir()
    assert find_shards([str(directory)]) == paths


def test_directories_keep_their_order(directory, tmp_path):
    other = tmp_path / "another"
    other.mkdir()
    paths = write(directory, [1]), write(other, [1])
    assert find_shards([str(directory), str(other)]) == paths[0] + paths[1]
    assert find_shards([str(other), str(directory)]) == paths[1] + paths[0]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"^{tmp_path}/nowhere: no such directory; "):
        find_shards([str(tmp_path / "nowhere")])


def test_a_file_in_place_of_a_directory_is_named(directory):
    (path,) = write(directory, [1])
    with pytest.raises(ValueError, match=rf"^{path}: Not a directory; give the directory that holds the shards"):
        find_shards([path])


def test_a_directory_without_shards_is_named(directory):
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"^{directory}: no TFRecord files in this directory; "):
        find_shards([str(directory)])


def test_no_directory_at_all():
    with pytest.raises(ValueError, match="no data directory given"):
        find_shards([])


def test_the_same_directory_twice_is_refused(directory):
    write(directory, [1])
    (directory.parent / "link").symlink_to(directory)
    with pytest.raises(ValueError, match="the same shards twice"):
        find_shards([str(directory), str(directory.parent / "link")])


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda path: path.write_text("Some notes about the data."), "not a TFRecord file"),
        (lambda path: path.write_text("short"), "not a TFRecord file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(gzip.compress(b"records")), "compressed with gzip, "),
        (lambda path: path.symlink_to("/nowhere/at/all"), "unreadable (No such file or directory)"),
    ],
)
def test_a_stray_file_is_named_or_left_out_on_request(directory, capfd, make, why):
    paths = write(directory, [1])
    make(directory / "stray")
    with pytest.raises(ValueError) as raised:
        find_shards([str(directory)])
    assert str(raised.value).startswith(f"{directory}/stray: {why}")
    assert "--skip_unreadable" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert find_shards([str(directory)], skip_unreadable=True) == paths
    assert capfd.readouterr().err.startswith(f"--skip_unreadable: left out {directory}/stray: {why}")
    assert find_shards([str(directory)], skip_unreadable=True, is_root=False) == paths
    assert capfd.readouterr().err == ""


def test_several_stray_files_are_counted(directory):
    for name in "abc":
        (directory / name).write_text("no shard at all")
    with pytest.raises(ValueError, match=rf"^{directory}/a: not a TFRecord file, and 2 other files there too; "):
        find_shards([str(directory)])


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
    assert ShardIndex(paths, rank, num_ranks=3).records_per_shard == [3, 5, 2]


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
    assert str(raised.value) == (
        f"{paths[0]}:{bad}: the record at this byte is damaged; copy the file again from its source, or remove it"
    )


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
    monkeypatch.setattr(shards, "_MAX_OPEN_FILES", 2)
    index = ShardIndex(write(directory, [1] * 6))
    before = len(os.listdir("/proc/self/fd"))
    assert index.read(np.arange(6)) == [content(shard, 0) for shard in range(6)]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del index


def test_threads_read_the_same(directory, monkeypatch):
    monkeypatch.setattr(shards, "_MAX_OPEN_FILES", 2)
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
