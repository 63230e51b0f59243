import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from bert_pretrain.data import index_table, indexing, offsets
from bert_pretrain.data.indexing import ALONE, Share
from bert_pretrain.data.tfrecord import write_shard


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


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
    assert sizes(indexing.load(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]
    monkeypatch.setattr(offsets, "scan", never)
    assert sizes(indexing.load(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]


def test_shards_that_were_indexed_before_an_interruption_or_moved_are_not_scanned_again(paths, monkeypatch, tmp_path):
    indexing.load(paths[1:], ALONE)
    moved = str(tmp_path / "moved")
    os.rename(paths[5], moved)
    monkeypatch.setattr(offsets, "scan", lambda path, report, scan=offsets.scan: path == paths[0] and scan(path))
    assert sizes(indexing.load([*paths[:5], moved], ALONE)[1]) == [1, 2, 3, 4, 5, 6]


def test_progress_counts_the_bytes_of_all_shards(paths):
    total = sum(map(os.path.getsize, paths))
    reports = []
    indexing.load(paths, ALONE._replace(report=lambda *report: reports.append(report)))
    assert reports == [(sum(map(os.path.getsize, paths[: number + 1])), total) for number in range(6)]


def _slow_rank(paths, share, scanned):
    def scan(path, report, scan=offsets.scan):
        scanned.put(path)
        time.sleep(0.05)
        return scan(path)

    offsets.scan = scan
    assert sizes(indexing.load(paths, share)[1]) == [1, 2, 3, 4, 5, 6]


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
    monkeypatch.setattr(offsets, "scan", lambda path, report, scan=offsets.scan: order.append(path) or scan(path))
    indexing.load(paths, Share(1, 3))
    assert order == [*paths[2:], *paths[:2]]


def test_a_killed_rank_leaves_its_shard_to_the_others(paths, tmp_path):
    code = f"""
import time
from bert_pretrain.data import indexing, offsets
offsets.scan = lambda path, report: print(path, flush=True) or time.sleep(60)
indexing.load({paths!r}, indexing.ALONE)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == paths[0]
    reports = []

    def report(done, total):
        reports.append((done, total))
        if done == total - os.path.getsize(paths[0]):
            other.kill()

    assert sizes(indexing.load(paths, ALONE._replace(report=report))[1]) == [1, 2, 3, 4, 5, 6]
    assert other.wait(10) != 0


def test_where_no_table_can_be_written_the_shards_are_indexed_all_the_same(paths, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "file"))
    assert sizes(indexing.load(paths, ALONE)[1]) == [1, 2, 3, 4, 5, 6]
    assert capfd.readouterr().err == (
        f"warning: {tmp_path}/file/index: index tables cannot be written (Not a directory), so the next start scans "
        f"the shards again; set BERT_PRETRAIN_CACHE to a folder with space\n"
    )
    indexing.load(paths, Share(1, 2))
    assert capfd.readouterr().err == ""


def test_hosts_that_share_a_cache_but_have_other_data_keep_their_tables(paths, cache, monkeypatch):
    """Each host's data have the same paths, sizes and times."""
    one = [b"one", b"and another"]
    state = None
    for records in (one, one[::-1]):
        write_shard(paths[0], records)
        state = state or os.stat(paths[0])
        os.utime(paths[0], ns=(state.st_atime_ns, state.st_mtime_ns))
        indexing.load(paths[:1], ALONE)
    assert len([path for path in cache.iterdir() if path.name != ".claims"]) == 2
    monkeypatch.setattr(offsets, "scan", never)
    assert indexing.load(paths[:1], ALONE)[1][0].tolist() == [0, 27, 46]
    write_shard(paths[0], one)
    os.utime(paths[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert indexing.load(paths[:1], ALONE)[1][0].tolist() == [0, 19, 46]


def test_a_shard_that_cannot_be_read_is_named(paths):
    os.remove(paths[2])
    with pytest.raises(ValueError, match=rf"^{paths[2]}: cannot be read \(No such file or directory\)"):
        indexing.load(paths, ALONE)


def test_a_stale_table_is_forgotten(paths):
    shard, *_ = indexing.load(paths, ALONE).shards
    index_table.forget(shard)
    assert index_table.read(shard) is None
    index_table.forget(shard)
