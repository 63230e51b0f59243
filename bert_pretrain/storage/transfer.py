"""Whole files from a remote storage to a local disk."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Callable

from bert_pretrain.storage import remote
from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import ReportBytes

_PART_BYTES = 8 << 20
_NUM_THREADS = 8

Count = Callable[[int], None]


def counter(what: str, total: int, report: ReportBytes) -> Count:
    """A Count that reports the sum of what it is told, of `total` bytes."""
    done = 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        report(what, done, total)

    return count


def download(file: RemoteFile, path: str, count: Count = lambda num_bytes: None) -> None:
    """Writes a remote file to a local path; count(bytes) is told of each part.

    OSError where it cannot be read or written, or was replaced meanwhile.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

    def copy(begin: int) -> int:
        end = min(begin + _PART_BYTES, file.num_bytes)
        rest = memoryview(remote.read_range(file.url, begin, end))
        while rest:
            rest = rest[os.pwrite(descriptor, rest, end - len(rest)) :]
        return end - begin

    executor = ThreadPoolExecutor(_NUM_THREADS)
    try:
        for part in as_completed([executor.submit(copy, begin) for begin in range(0, file.num_bytes, _PART_BYTES)]):
            count(part.result())
        os.fsync(descriptor)
    finally:
        executor.shutdown(wait=True)
        os.close(descriptor)
    if remote.describe(file.url, is_fresh=True) != file:
        raise OSError(0, "the file was replaced while it was read; start again", file.url)
