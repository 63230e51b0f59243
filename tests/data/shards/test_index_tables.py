""""""

import mmap
import multiprocessing
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from bert_pretrain.data.shards import index_tables, offsets
from bert_pretrain.data.shards.index_tables import ALONE, Share
from bert_pretrain.data.shards.tfrecord import write_shard

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
    identity, table = index_tables.scan_shard(shard)
    index_tables.keep_table(identity, table)
    return identity


def test_a_table_is_kept_in_one_file(kept, cache):
    table = index_tables.read_table(kept)
    assert table.tolist() == TABLE
    assert table.dtype == np.uint32
    assert [path.name for path in cache.iterdir()] == [kept.key]


def test_a_shard_of_four_gigabytes_has_int64():
    shard = index_tables.ShardIdentity("0" * 40, 5 << 30)
    index_tables.keep_table(shard, np.array([0, 4 << 30, 5 << 30]))
    assert index_tables.read_table(shard).tolist() == [0, 4 << 30, 5 << 30]
    assert index_tables.read_table(shard).dtype == np.int64


def test_a_moved_shard_keeps_its_identity(kept, shard, tmp_path):
    os.rename(shard, tmp_path / "elsewhere")
    assert index_tables.identify_shard(str(tmp_path / "elsewhere")) == kept


@pytest.mark.parametrize("records", [[b"another"], [b"12", b"345", b"third record"], [b"first", b"", b"third  ecord"]])
def test_another_shard_has_another_identity_whatever_its_time(kept, shard, records):
    state = os.stat(shard)
    write_shard(shard, records)
    os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert index_tables.identify_shard(shard) != kept


def test_a_shard_of_another_time_has_another_identity(kept, shard):
    os.utime(shard, ns=(1, 1))
    assert index_tables.identify_shard(shard) != kept


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
    assert index_tables.read_table(kept) is None
    index_tables.keep_table(kept, np.array(TABLE))
    assert path.read_bytes() == sound


def test_a_table_under_another_shards_name_is_not_used(kept, cache):
    other = kept._replace(key="f" * 40)
    (cache / kept.key).rename(cache / other.key)
    assert index_tables.read_table(other) is None


def test_a_sound_table_is_never_replaced(kept, cache):
    """Another host may have mapped it; on NFS the pages of a replaced file are lost."""
    before = os.stat(cache / kept.key).st_ino
    index_tables.keep_table(kept, np.array(TABLE))
    assert os.stat(cache / kept.key).st_ino == before
    assert len(os.listdir(cache)) == 1


def test_a_large_table_is_mapped_without_a_descriptor(cache):
    shard = index_tables.ShardIdentity("a" * 40, 40 * mmap.PAGESIZE)
    expected = np.arange(40 * mmap.PAGESIZE + 1)
    index_tables.keep_table(shard, expected)
    before = len(os.listdir("/proc/self/fd"))
    table = index_tables.read_table(shard)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_user_s_table_is_not_mapped_so_that_cutting_it_ends_no_process(cache):
    shard = index_tables.ShardIdentity("a" * 40, 40 * mmap.PAGESIZE)
    index_tables.keep_table(shard, np.arange(40 * mmap.PAGESIZE + 1))
    os.chown(cache / shard.key, 65534, 65534)
    table = index_tables.read_table(shard)
    os.truncate(cache / shard.key, 0)
    assert table[-1] == 40 * mmap.PAGESIZE


def test_without_descriptors_a_table_is_an_error_and_not_missing(kept):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            index_tables.read_table(kept)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shard_that_changes_while_it_is_scanned_is_named(shard):
    with pytest.raises(ValueError, match=rf"^{shard}: changed"):
        index_tables.scan_shard(shard, lambda done: os.utime(shard, ns=(5, 5)))


@pytest.fixture
def paths(tmp_path):
    found = [str(tmp_path / f"shard-{number}") for number in range(6)]
    for number, path in enumerate(found):
        write_shard(path, [b"record"] * (number + 1))
    return found


def sizes(tables):
    return [len(table) - 1 for table in tables]


def never(path, report=None):
    pytest.fail(f"{path} was scanned again")


def test_a_second_start_scans_nothing(paths, monkeypatch):
    assert sizes(index_tables.load_tables(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]
    monkeypatch.setattr(offsets, "scan_offsets", never)
    assert sizes(index_tables.load_tables(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]


def test_shards_that_were_indexed_before_an_interruption_or_moved_are_not_scanned_again(paths, monkeypatch, tmp_path):
    index_tables.load_tables(paths[1:], ALONE)
    moved = str(tmp_path / "moved")
    os.rename(paths[5], moved)
    monkeypatch.setattr(
        offsets, "scan_offsets", lambda path, report, scan=offsets.scan_offsets: path == paths[0] and scan(path)
    )
    assert sizes(index_tables.load_tables([*paths[:5], moved], ALONE)[1]) == [1, 2, 3, 4, 5, 6]


def test_progress_counts_the_bytes_of_all_shards(paths):
    total = sum(map(os.path.getsize, paths))
    reports = []
    index_tables.load_tables(paths, ALONE._replace(report=lambda *report: reports.append(report)))
    assert reports == [(sum(map(os.path.getsize, paths[: number + 1])), total) for number in range(6)]


def _slow_rank(paths, share, scanned):
    def scan(path, report, scan=offsets.scan_offsets):
        scanned.put(path)
        time.sleep(0.05)
        return scan(path)

    offsets.scan_offsets = scan
    assert sizes(index_tables.load_tables(paths, share)[1]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_the_ranks_of_a_host_scan_each_shard_once(paths, num_ranks):
    context = multiprocessing.get_context("spawn")
    scanned = context.Manager().Queue()
    ranks = [
        context.Process(target=_slow_rank, args=(paths, Share(rank, num_ranks), scanned)) for rank in range(num_ranks)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    assert sorted(scanned.get() for _ in range(scanned.qsize())) == paths


def test_ranks_of_a_host_start_at_different_shards(paths, monkeypatch):
    order = []
    monkeypatch.setattr(
        offsets, "scan_offsets", lambda path, report, scan=offsets.scan_offsets: order.append(path) or scan(path)
    )
    index_tables.load_tables(paths, Share(1, 3))
    assert order == [*paths[2:], *paths[:2]]


def test_a_killed_rank_leaves_its_shard_to_the_others(paths, tmp_path):
    code = f"""
import time
from bert_pretrain.data.shards import index_tables, offsets
offsets.scan_offsets = lambda path, report: print(path, flush=True) or time.sleep(60)
index_tables.load_tables({paths!r}, index_tables.ALONE)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == paths[0]
    reports = []

    def report(done, total):
        reports.append((done, total))
        if done == total - os.path.getsize(paths[0]):
            other.kill()

    assert sizes(index_tables.load_tables(paths, ALONE._replace(report=report))[1]) == [1, 2, 3, 4, 5, 6]
    assert other.wait(10) != 0


def test_where_no_table_can_be_written_the_shards_are_indexed_all_the_same(paths, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "file"))
    assert sizes(index_tables.load_tables(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"warning: {tmp_path}/file/index: ") and "BERT_PRETRAIN_CACHE" in told
    index_tables.load_tables(paths, Share(1, 2))
    assert capfd.readouterr().err == ""


def test_hosts_that_share_a_cache_but_have_other_data_keep_their_tables(paths, cache, monkeypatch):
    """Each host's data have the same paths, sizes and times."""
    one = [b"one", b"and another"]
    state = None
    for records in (one, one[::-1]):
        write_shard(paths[0], records)
        state = state or os.stat(paths[0])
        os.utime(paths[0], ns=(state.st_atime_ns, state.st_mtime_ns))
        index_tables.load_tables(paths[:1], ALONE)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(offsets, "scan_offsets", never)
    assert index_tables.load_tables(paths[:1], ALONE)[1][0].tolist() == [0, 27, 46]
    write_shard(paths[0], one)
    os.utime(paths[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert index_tables.load_tables(paths[:1], ALONE)[1][0].tolist() == [0, 19, 46]


def test_a_shard_that_cannot_be_read_is_named(paths):
    os.remove(paths[2])
    with pytest.raises(ValueError, match=rf"^{paths[2]}: cannot be read \(No such file or directory\)"):
        index_tables.load_tables(paths, ALONE)


def test_a_stale_table_is_forgotten(paths):
    shard, *_ = index_tables.load_tables(paths, ALONE).shards
    index_tables.forget_table(shard)
    assert index_tables.read_table(shard) is None
    index_tables.forget_table(shard)
