"""One job in a directory of a bucket."""

from __future__ import annotations

import json
import time

import pytest

from bert_pretrain.storage import remote, remote_lock
from bert_pretrain.storage.remote_lock import RemoteLock
from tests.storage import servers

servers.require()


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_lock, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(remote_lock, "_WATCH_SECONDS", 1.2)
    monkeypatch.setattr(remote_lock, "_SETTLE_SECONDS", 0.1)


def test_a_second_job_is_refused_while_the_first_lives_and_let_in_after_it(bucket) -> None:
    url, lines = f"{bucket}/run", []
    first = RemoteLock(url, "here", lines.append)
    with pytest.raises(ValueError, match=f"^--output_dir: {url} is in use: process .*{url}/training.lock$"):
        RemoteLock(url, "there", lines.append)
    assert len(lines) == 1 and f"{url}/training.lock names process" in lines[0]
    first.release()
    assert remote_lock.read_holder(url) is None
    RemoteLock(url, "there", lines.append).release()
    assert len(lines) == 1


def test_what_a_killed_job_left_is_taken_at_once_on_its_machine_and_after_a_while_elsewhere(bucket) -> None:
    url, lines = f"{bucket}/run", []
    dead = RemoteLock(url, "here", lines.append)
    dead._is_released.set()
    dead._heart.join()
    RemoteLock(url, "here", lines.append)._is_released.set()
    assert not lines
    begin = time.monotonic()
    lock = RemoteLock(url, "there", lines.append)
    assert len(lines) == 1 and time.monotonic() - begin > 1.2
    lock.release()


def test_a_job_notices_that_its_lock_was_taken(bucket) -> None:
    url = f"{bucket}/run"
    lock = RemoteLock(url, "here", print)
    other = {**remote_lock.read_holder(url), "token": "another", "beat": 0}
    remote.write_small(f"{url}/training.lock", json.dumps(other).encode())
    end = time.monotonic() + 60
    while not lock.is_lost and time.monotonic() < end:
        remote.write_small(f"{url}/training.lock", json.dumps(other).encode())
        time.sleep(0.1)
    assert lock.is_lost
    lock.release()
    assert remote_lock.read_holder(url)["token"] == "another"


def test_an_object_that_is_no_lock_is_overwritten_and_a_missing_bucket_is_one_line(bucket, put) -> None:
    put("run/training.lock", b"{")
    RemoteLock(f"{bucket}/run", "here", print).release()
    with pytest.raises(ValueError, match=r"^--output_dir: s3://no-such-bucket-here/x/training.lock cannot be written"):
        RemoteLock("s3://no-such-bucket-here/x", "here", print)
