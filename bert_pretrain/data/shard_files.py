"""The files of a data set: which they are, and what identifies them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, Optional

from bert_pretrain.data import tfrecord
from bert_pretrain.files import open_regular

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
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if not entry.is_dir())
    except FileNotFoundError:
        raise ValueError(f"{directory}: no such directory; give the one that holds the shards") from None
    except OSError as error:
        raise ValueError(f"{directory}: {error.strerror}; give the directory that holds the shards") from None
    paths = [os.path.join(directory, name) for name in names if not name.startswith(".")]
    paths = [path for path in paths if not path.endswith(_SIDE_FILES)]
    strays = {path: why for path in paths if (why := _why_not_a_shard(path))}
    if strays and not skip_unreadable:
        path, why = next(iter(strays.items()))
        others = f", and {len(strays) - 1} other files there too" if len(strays) > 1 else ""
        raise ValueError(f"{path}: {why}{others}; move it elsewhere, or give --skip_unreadable to leave such files out")
    for path, why in strays.items() if is_root else ():
        print(f"--skip_unreadable: left out {path}: {why}", file=sys.stderr)
    return [path for path in paths if path not in strays]


def _why_not_a_shard(path: str) -> Optional[str]:
    """The reason why a file is not a shard; None if it begins with a valid TFRecord header."""
    try:
        with open_regular(path, "rb", buffering=0) as file:
            start = file.read(tfrecord.HEADER.size)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not start:
        return "empty"
    if start.startswith(_GZIP_MAGIC):
        return "compressed with gzip, and records are read by offset (gunzip makes it readable)"
    if len(start) < tfrecord.HEADER.size or start != tfrecord.header(tfrecord.HEADER.unpack(start)[0]):
        return "not a TFRecord file"
    return None
