import mmap
import os

import numpy as np
import pytest

from bert_pretrain.data import index_table
from bert_pretrain.data.tfrecord import write_shard

TABLE = [0, 21, 37, 65]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


@pytest.fixture
def shard(tmp_path):
    path = str(tmp_path / "shard")
    write_shard(path, [b"first", b"", b"third record"])
    return path


@pytest.fixture
def kept(shard):
    """A shard whose table is kept."""
    identity, table = index_table.scan(shard)
    index_table.keep(identity, table)
    return identity


def test_a_table_is_kept_in_one_file(kept, cache):
    table = index_table.read(kept)
    assert table.tolist() == TABLE
    assert table.dtype == np.uint32
    assert [path.name for path in cache.iterdir()] == [kept.key]


def test_a_shard_of_four_gigabytes_has_int64():
    shard = index_table.Identity("0" * 40, 5 << 30)
    index_table.keep(shard, np.array([0, 4 << 30, 5 << 30]))
    assert index_table.read(shard).tolist() == [0, 4 << 30, 5 << 30]
    assert index_table.read(shard).dtype == np.int64


def test_a_moved_shard_keeps_its_identity(kept, shard, tmp_path):
    os.rename(shard, tmp_path / "elsewhere")
    assert index_table.identify(str(tmp_path / "elsewhere")) == kept


@pytest.mark.parametrize("records", [[b"another"], [b"12", b"345", b"third record"], [b"first", b"", b"third  ecord"]])
def test_another_shard_has_another_identity_whatever_its_time(kept, shard, records):
    state = os.stat(shard)
    write_shard(shard, records)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert index_table.identify(shard) != kept


def test_a_shard_of_another_time_has_another_identity(kept, shard):
    os.utime(shard, ns=(1, 1))
    assert index_table.identify(shard) != kept


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: b"",
        lambda table: table[:-3],
        lambda table: table[:-4],
        lambda table: table[:5],
        lambda table: table[:8],
        lambda table: table + b"\0\0\0\0",
        lambda table: bytes([table[0] ^ 1]) + table[1:],
        lambda table: table[:13] + bytes([table[13] ^ 1]) + table[14:],
    ],
)
def test_a_damaged_table_is_not_used_and_made_again(kept, cache, spoil):
    path = cache / kept.key
    sound = path.read_bytes()
    path.write_bytes(spoil(sound))
    assert index_table.read(kept) is None
    index_table.keep(kept, np.array(TABLE))
    assert path.read_bytes() == sound


def test_a_table_under_another_shards_name_is_not_used(kept, cache):
    other = kept._replace(key="f" * 40)
    (cache / kept.key).rename(cache / other.key)
    assert index_table.read(other) is None


def test_a_sound_table_is_never_replaced(kept, cache):
    """Another host may have mapped it; on NFS the pages of a replaced file are lost."""
    before = os.stat(cache / kept.key).st_ino
    index_table.keep(kept, np.array(TABLE))
    assert os.stat(cache / kept.key).st_ino == before
    assert len(os.listdir(cache)) == 1


def test_a_large_table_is_mapped_without_a_descriptor(cache):
    shard = index_table.Identity("a" * 40, 40 * mmap.PAGESIZE)
    expected = np.arange(40 * mmap.PAGESIZE + 1)
    index_table.keep(shard, expected)
    before = len(os.listdir("/proc/self/fd"))
    table = index_table.read(shard)
    with open("/proc/self/maps") as maps:
        assert shard.key in maps.read()
    assert len(os.listdir("/proc/self/fd")) == before
    os.remove(cache / shard.key)
    np.testing.assert_array_equal(table, expected)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1
    part = table[5:7]
    del table
    assert part.tolist() == [5, 6]
    del part
    with open("/proc/self/maps") as maps:
        assert shard.key not in maps.read()


def test_without_descriptors_a_table_is_an_error_and_not_missing(kept):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            index_table.read(kept)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shard_that_changes_while_it_is_scanned_is_named(shard):
    with pytest.raises(ValueError, match=rf"^{shard}: changed while it was indexed; "):
        index_table.scan(shard, lambda done: os.utime(shard, ns=(5, 5)))
