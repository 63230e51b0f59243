"""Where each record of a shard begins: a local shard is read from header to header, a remote one as a whole.

One pass over a remote shard checks the CRC of every record, too.
"""

from __future__ import annotations

import collections
import os
from array import array
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Callable, Optional

import numpy as np
from crc32c import crc32c

from bert_pretrain.data.shards import tfrecord
from bert_pretrain.storage import remote
from bert_pretrain.storage.remote import RemoteFile
from bert_pretrain.system.files import open_regular

COPY_AGAIN = "copy the file again from its source, or remove it"

_CHUNK_BYTES = 4 << 20
_PART_BYTES = 4 << 20
_PARTS_AHEAD = 8


def scan_offsets(path: str, report: Callable[[int], None] = lambda done: None) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and the end of the file.

    Checks the CRC of each length and calls report(bytes done) now and then. ValueError, naming file and byte, for a
    shard that is damaged or cut short; OSError where it cannot be read.
    """
    offsets = array("q")
    with open_regular(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        base = 0
        while base < size:
            chunk = os.pread(file.fileno(), _CHUNK_BYTES, base)
            within = 0
            while within + tfrecord.HEADER.size <= len(chunk):
                length = tfrecord.HEADER.unpack_from(chunk, within)[0]
                if tfrecord.record_header(length) != chunk[within : within + tfrecord.HEADER.size]:
                    raise ValueError(f"{path}:{base + within}: the header at this byte is damaged; {COPY_AGAIN}")
                offsets.append(base + within)
                within += length + tfrecord.FRAME_SIZE
            if base + within > size or not within:
                raise ValueError(f"{path}:{offsets[-1] if within else base}: {cut_short(size)}")
            base += within
            report(base)
    offsets.append(size)
    return np.frombuffer(offsets, np.int64)


def cut_short(size: int) -> str:
    """Error text for a record that extends beyond the end of its file."""
    return f"the record at this byte is cut short, the file ends at byte {size}; {COPY_AGAIN}"


def scan_remote_offsets(
    file: RemoteFile, report: Callable[[int], None], copy: Optional[IO[bytes]] = None
) -> np.ndarray:
    """[N+1] int64: the byte at which each of a shard's N records begins, and its end. Writes the shard to `copy`, too.

    ValueError, naming URL and byte, for a shard that is damaged or cut short; OSError where it cannot be read.
    """
    found, rest, base = array("q"), b"", 0  # rest: the bytes from `base` on that are not parsed yet
    for part in _parts(file):
        rest += part
        starts, parsed, problem = parse_offsets(rest, base)
        if problem is not None:  # wrong bytes on their way here? Then other tries have others.
            begin, end = base + parsed, base + len(rest)
            rest = rest[:parsed] + remote.read_range(file.url, begin, end, lambda again, at=begin: _problem(again, at))
            starts, parsed, problem = parse_offsets(rest, base)
            assert problem is None, problem
        found.extend(starts)
        if copy is not None:
            copy.write(rest[:parsed])
        rest, base = rest[parsed:], base + parsed
        report(base)
    if rest:
        raise ValueError(f"{file.url}:{base}: {cut_short(file.num_bytes)}")
    found.append(file.num_bytes)
    return np.frombuffer(found, np.int64)


def parse_offsets(content: bytes, base: int) -> tuple[list[int], int, Optional[str]]:
    """Positions of the whole records in `content`, which begins at byte `base` of a shard, and bytes parsed.

    Third, what is wrong with the record that follows, None where nothing is: it may be cut off.
    """
    starts, within = [], 0
    while within + tfrecord.HEADER.size <= len(content):
        header = content[within : within + tfrecord.HEADER.size]
        length = tfrecord.HEADER.unpack(header)[0]
        if tfrecord.record_header(length) != header:
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
    return tfrecord.FOOTER.pack(tfrecord.masked_crc(crc32c(memoryview(content)[begin:end])))


def _problem(content: bytes, base: int) -> Optional[str]:
    problem = parse_offsets(content, base)[2]
    return problem and f"{problem}; {COPY_AGAIN}"


def _parts(file: RemoteFile) -> Iterator[bytes]:
    """The shard's bytes in order; the parts that follow are on their way meanwhile."""
    waiting: collections.deque[Future[bytes]] = collections.deque()
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
