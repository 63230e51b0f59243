"""Copies of remote files within a budget."""

from __future__ import annotations

import os
import time

import pytest

from bert_pretrain.storage.file_cache import FileCache
from bert_pretrain.storage.remote import RemoteFile


def file(name: str, num_bytes: int = 10, version: str = "1") -> RemoteFile:
    return RemoteFile(f"s3://b/{name}", num_bytes, version)


def write(cache: FileCache, one: RemoteFile) -> bool:
    with cache.writing(one) as output:
        if output:
            output.write(bytes(one.num_bytes))
    return output is not None


def test_a_copy_is_found_by_url_size_and_version(tmp_path) -> None:
    cache = FileCache(str(tmp_path / "copies"), 100)
    assert cache.find(file("a")) is None
    assert write(cache, file("a"))
    assert os.path.getsize(cache.find(file("a"))) == 10
    assert cache.find(file("a", version="2")) is None
    cache.forget(file("a"))
    assert cache.find(file("a")) is None


def test_the_least_recently_used_copies_go_but_none_that_is_needed(tmp_path) -> None:
    cache = FileCache(str(tmp_path), 35)
    for name in "abc":
        assert write(cache, file(name))
        time.sleep(0.02)
    cache.find(file("a"))
    assert write(cache, file("d"))
    assert [cache.find(file(name)) is not None for name in "abcd"] == [True, False, True, True]
    cache.need(map(file, "acd"))
    assert not write(cache, file("e"))
    assert [cache.find(file(name)) is not None for name in "acde"] == [True, True, True, False]
    assert not write(FileCache(str(tmp_path), 35), file("large", 36))
    assert cache.find(file("a")) is not None  # nothing is removed where that would not do


def test_a_copy_in_the_making_counts_and_what_a_killed_process_left_goes(tmp_path) -> None:
    cache, other = (FileCache(str(tmp_path), 25) for _ in range(2))
    with cache.writing(file("a")) as output:
        output.write(bytes(5))
        assert not write(other, file("b", 20))
        assert write(other, file("c", 15))
        output.write(bytes(5))
    other.forget(file("c"))
    (tmp_path / "dead.partial").write_bytes(bytes(15))
    assert write(other, file("d", 15))
    assert not (tmp_path / "dead.partial").exists()


def test_a_copy_that_another_process_writes_is_left_to_it(tmp_path) -> None:
    cache, other = (FileCache(str(tmp_path), 25) for _ in range(2))
    with cache.writing(file("a")) as output:
        output.write(bytes(5))
        assert not write(other, file("a"))
        output.write(bytes(5))
    assert cache.find(file("a"))


def test_an_exception_leaves_no_copy(tmp_path) -> None:
    cache = FileCache(str(tmp_path), 25)
    with pytest.raises(ValueError, match="stop"), cache.writing(file("a")):
        raise ValueError("stop")
    assert cache.find(file("a")) is None
    assert os.listdir(tmp_path) == [".lock"]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ValueError, match=r"^--cache_dir: .*/taken/x cannot be written \(Not a directory\)$"):
        FileCache(str(tmp_path / "taken" / "x"), 10)
