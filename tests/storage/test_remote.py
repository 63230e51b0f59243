"""Requests to a real S3 server: what they answer, and what errors on the way do to them."""

from __future__ import annotations

import errno
import re
import subprocess
import sys

import pytest

from bert_pretrain.storage import remote
from tests.storage import servers

servers.require()
CONTENT = bytes(range(256)) * 64


def test_a_directory_is_listed_without_what_is_below_it(bucket, put) -> None:
    for key in ("data/b", "data/a", "data/deeper/c", "other/d"):
        put(key, key.encode())
    found = remote.list_files(f"{bucket}/data/")
    assert [(file.url, file.num_bytes) for file in found] == [(f"{bucket}/data/a", 6), (f"{bucket}/data/b", 6)]
    assert remote.describe_file(found[0].url) == found[0]
    with pytest.raises(IsADirectoryError):
        remote.describe_file(f"{bucket}/data")


def test_the_version_changes_with_the_content(put) -> None:
    url = put("file", b"one")
    before = remote.describe_file(url)
    put("file", b"two")
    assert remote.describe_file(url, is_fresh=True) != before


def test_a_range_is_read(put) -> None:
    url = put("file", CONTENT)
    assert remote.read_range(url, 1000, 3000) == CONTENT[1000:3000]
    assert remote.read_range(url, 5, 5) == b""
    assert remote.read_small(url) == CONTENT


@pytest.mark.parametrize("fault", servers.FAULTS)
def test_two_errors_and_then_an_answer_give_the_right_bytes(put, proxy, fault: str) -> None:
    url = put("file", CONTENT)
    proxy.choose = lambda number, path: fault if number < 2 else None

    def problem(content: bytes):
        return None if content == CONTENT[100:9000] else "not these"

    assert remote.read_range(url, 100, 9000, problem) == CONTENT[100:9000]
    assert proxy.faults == {fault: 1 if fault == "slow" else 2}


@pytest.mark.parametrize("fault", ["503", "reset", "truncated"])
def test_an_error_that_stays_is_told_in_one_line(put, proxy, fault: str, monkeypatch, capsys) -> None:
    url = put("file", CONTENT)
    monkeypatch.setattr(remote, "TRIES", 5)
    monkeypatch.setattr(remote, "_told_at", -100.0)
    proxy.choose = lambda number, path: fault
    with pytest.raises(OSError, match=r"5 tries failed, the last with: .+") as raised:
        remote.read_range(url, 0, 100)
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, url)
    assert "\n" not in raised.value.strerror
    assert proxy.num_gets in (5, 10)  # aiohttp sends a GET again whose connection was reset
    assert f"warning: {url}: try 4 of 5 failed: " in capsys.readouterr().err


def test_bytes_that_are_always_wrong_are_not_asked_for_without_end(put, proxy) -> None:
    url = put("file", CONTENT)
    with pytest.raises(OSError, match="4 tries failed, the last with: damaged"):
        remote.read_range(url, 0, 100, lambda content: "damaged")
    assert proxy.num_gets == remote.TRIES_OF_WRONG_BYTES


def test_what_does_not_exist_is_told_at_once(bucket, proxy) -> None:
    for url in (f"{bucket}/nothing", "s3://no-such-bucket-here/x"):
        with pytest.raises(FileNotFoundError):
            remote.list_files(url)
        with pytest.raises(FileNotFoundError):
            remote.describe_file(url)
        with pytest.raises(FileNotFoundError):
            remote.read_small(url)


def test_a_missing_library_is_one_line() -> None:
    program = (
        "import sys; sys.modules['{hidden}'] = None\n"
        "from bert_pretrain.storage import remote\n"
        "try: remote.list_files('{url}')\n"
        "except ValueError as error: print(error)"
    )
    for hidden, url, expected in (
        ("fsspec", "s3://b/x", r"s3:// needs fsspec, .*init_tf.sh --storage"),
        ("tenacity", "s3://b/x", r"s3:// needs tenacity, .*init_tf.sh --storage"),
        ("s3fs", "s3://b/x", r"s3:// needs .*init_tf.sh --storage"),
        ("gcsfs", "gs://b/x", r"gs:// needs .*pip install gcsfs"),
        ("none", "nowhere://b/x", r"nowhere:// .*s3://, gs:// or hdfs://"),
        ("none", "s3://", r"s3://: names no bucket .*"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program.format(hidden=hidden, url=url)], capture_output=True, text=True
        )
        assert re.fullmatch(expected, done.stdout.strip()), done.stderr
