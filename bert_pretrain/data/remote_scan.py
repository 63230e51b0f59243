"""Where each record of a remote shard begins: one pass over the whole shard, which checks the CRC of every record."""

from __future__ import annotations

import collections
from array import array
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Callable, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data import offsets, tfrecord
from bert_pretrain.storage import remote
from bert_pretrain.storage.remote import RemoteFile

_PART_BYTES = 4 << 20
_PARTS_AHEAD = 8


def scan(file: RemoteFile, report: Callable[[int], None], copy: Optional[IO[bytes]] = None) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and its end. Writes the shard to `copy`, too.

    ValueError, naming URL and byte, for a shard that is damaged or cut short; OSError where it cannot be read.
    """
    found, rest, base = array("q"), b"", 0  # rest: the bytes from `base` on that are not parsed yet
    for part in _parts(file):
        rest += part
        starts, parsed, problem = parse(rest, base)
        if problem is not None:  # wrong bytes on their way here? Then other tries have others.
            begin, end = base + parsed, base + len(rest)
            rest = rest[:parsed] + remote.read_range(file.url, begin, end, lambda again, at=begin: _problem(again, at))
            starts, parsed, problem = parse(rest, base)
            assert problem is None, problem
        found.extend(starts)
        if copy is not None:
            copy.write(rest[:parsed])
        rest, base = rest[parsed:], base + parsed
        report(base)
    if rest:
        raise ValueError(f"{file.url}:{base}: {offsets.cut_short(file.num_bytes)}")
    found.append(file.num_bytes)
    return np.frombuffer(found, np.int64)


def parse(content: bytes, base: int) -> tuple[list[int], int, Optional[str]]:
    """Positions of the whole records in `content`, which begins at byte `base` of a shard, and bytes parsed.

    Third, what is wrong with the record that follows, None where nothing is: it may be cut off.
    """
    starts, within = [], 0
    while within + tfrecord.HEADER.size <= len(content):
        header = content[within : within + tfrecord.HEADER.size]
        length = tfrecord.HEADER.unpack(header)[0]
        if tfrecord.header(length) != header:
            return starts, within, f"the header at byte {base + within} is damaged"
        stop = within + length + tfrecord.FRAME_SIZE
        if stop > len(content):
            break
        data = within + tfrecord.HEADER.size
        if content[stop - tfrecord.FOOTER.size : stop] != _footer(content, data, data + length):
            return starts, within, f"the record at byte {base + within} is damaged"
        starts.append(base + within)
        within = stop
    return starts, within, None


def _footer(content: bytes, begin: int, end: int) -> bytes:
    return tfrecord.FOOTER.pack(tfrecord.masked(crc32c(memoryview(content)[begin:end])))


def _problem(content: bytes, base: int) -> Optional[str]:
    problem = parse(content, base)[2]
    return problem and f"{problem}; {offsets.COPY_AGAIN}"


def _parts(file: RemoteFile) -> Iterator[bytes]:
    """The shard's bytes in order; the parts that follow are on their way meanwhile."""
    waiting: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(_PARTS_AHEAD) as executor:
        try:
            for begin in range(0, file.num_bytes, _PART_BYTES):
                end = min(file.num_bytes, begin + _PART_BYTES)
                waiting.append(executor.submit(remote.read_range, file.url, begin, end))
                if len(waiting) >= _PARTS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
