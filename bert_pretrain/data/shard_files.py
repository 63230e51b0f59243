"""The files of a data set: which they are, and what identifies them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Optional

from bert_pretrain.data import tfrecord
from bert_pretrain.storage import remote
from bert_pretrain.storage.read_ahead import NUM_THREADS
from bert_pretrain.storage.retry import TRIES_OF_WRONG_BYTES
from bert_pretrain.system.files import is_url, open_regular

_SIDE_FILES = (".json", ".npz")  # of bert_pretrain, beside shards: manifest.json, provenance of make_data
_GZIP_MAGIC = b"\x1f\x8b"


class ShardFile(NamedTuple):
    """A shard and its size."""

    path: str
    num_bytes: int
    num_records: int


def fingerprint(shards: Sequence[ShardFile]) -> str:
    """Identifies a data set by names, sizes and record counts of its shards, whatever their directory."""
    facts = [f"{os.path.basename(shard.path)} {shard.num_bytes} {shard.num_records}\n" for shard in shards]
    return hashlib.sha256("".join(facts).encode()).hexdigest()[:16]


def in_directory(shards: Sequence[ShardFile], directory: str) -> list[ShardFile]:
    """The shards that find_shards found in a directory, named as it was given."""
    parent = os.path.dirname(os.path.join(directory, "x"))
    return [shard for shard in shards if os.path.dirname(shard.path) == parent]


def find_shards(directories: Sequence[str], skip_unreadable: bool = False, is_root: bool = True) -> list[str]:
    """The TFRecord files directly in `directories`, by name within each, without hidden files.

    ValueError for a directory that is missing, given twice or without shards, and for a file that is not a TFRecord.
    With skip_unreadable such a file is left out, and rank 0 names it on stderr.
    """
    paths: list[str] = []
    for directory in directories:
        found = _find_in(directory, skip_unreadable, is_root)
        if not found:
            raise ValueError(f"{directory}: no TFRecord files in this directory; give the one that holds the shards")
        paths += found
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise ValueError(f"{', '.join(directories)}: the same shards twice; name each directory once")
    if not paths:
        raise ValueError("no data directory given; name one that holds TFRecord shards")
    return paths


def _find_in(directory: str, skip_unreadable: bool, is_root: bool) -> list[str]:
    names = _remote_names(directory) if is_url(directory) else _local_names(directory)
    paths = [os.path.join(directory, name) for name in names if not name.startswith(".")]
    paths = [path for path in paths if not path.endswith(_SIDE_FILES)]
    strays = {path: why for path, why in zip(paths, _why_not_shards(paths)) if why}
    if strays and not skip_unreadable:
        path, why = next(iter(strays.items()))
        others = f", and {len(strays) - 1} other files there too" if len(strays) > 1 else ""
        raise ValueError(f"{path}: {why}{others}; move it elsewhere, or give --skip_unreadable to leave such files out")
    for path, why in strays.items() if is_root else ():
        print(f"--skip_unreadable: left out {path}: {why}", file=sys.stderr)
    return [path for path in paths if path not in strays]


def _local_names(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if not entry.is_dir())
    except FileNotFoundError:
        raise ValueError(f"{directory}: no such directory; give the one that holds the shards") from None
    except OSError as error:
        raise ValueError(f"{directory}: {error.strerror}; give the directory that holds the shards") from None


def _remote_names(directory: str) -> list[str]:
    try:
        return [os.path.basename(file.url) for file in remote.list_files(directory)]
    except FileNotFoundError:
        raise ValueError(f"{directory}: no such bucket or directory; give the one that holds the shards") from None
    except OSError as error:
        raise ValueError(f"{directory}: cannot be listed ({error.strerror})") from None


def _why_not_shards(paths: Sequence[str]) -> list[Optional[str]]:
    """_why_not_a_shard of each path; a storage answers many requests at a time."""
    if not any(map(is_url, paths)):
        return [_why_not_a_shard(path) for path in paths]
    with ThreadPoolExecutor(NUM_THREADS) as executor:
        return list(executor.map(_why_not_a_shard, paths))


def _why_not_a_shard(path: str) -> Optional[str]:
    """The reason why a file is not a shard; None if it begins with a valid TFRecord header."""
    try:
        start = _start(path)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not start:
        return "empty"
    if start.startswith(_GZIP_MAGIC):
        return "compressed with gzip, and records are read by offset (gunzip makes it readable)"
    return None if _is_header(start) else "not a TFRecord file"


def _start(path: str) -> bytes:
    """The first bytes of a file, as many as a header has; a storage's are read again before they count as wrong."""
    if not is_url(path):
        with open_regular(path, "rb", buffering=0) as file:
            return file.read(tfrecord.HEADER.size)
    size = min(tfrecord.HEADER.size, remote.describe(path).num_bytes)
    starts = (remote.read_range(path, 0, size, at_start=True) for _ in range(TRIES_OF_WRONG_BYTES))
    return next((start for start in starts if _is_header(start)), None) or remote.read_range(path, 0, size)


def _is_header(start: bytes) -> bool:
    return len(start) == tfrecord.HEADER.size and start == tfrecord.header(tfrecord.HEADER.unpack(start)[0])
