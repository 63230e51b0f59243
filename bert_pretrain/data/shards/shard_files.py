"""What lies in a data directory: the shards, what identifies them, manifest.json, and the JSON file beside a shard.

manifest.json holds the state of the shards when check_data checked them, which training then requires.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Optional

from bert_pretrain.data.shards import tfrecord
from bert_pretrain.storage import remote
from bert_pretrain.storage.read_ahead import NUM_THREADS
from bert_pretrain.storage.remote import TRIES_OF_WRONG_BYTES, read_path_or_url
from bert_pretrain.system.files import hash_file, is_url, open_regular, require_free_name, write_json

_SIDE_FILES = (".json", ".npz")  # of bert_pretrain, beside shards: manifest.json, provenance of make_data
_GZIP_MAGIC = b"\x1f\x8b"
_MANIFEST = "manifest.json"


class ShardFile(NamedTuple):
    """A shard and its size."""

    path: str
    num_bytes: int
    num_records: int


def fingerprint(shards: Sequence[ShardFile]) -> str:
    """Identifies a data set by names, sizes and record counts of its shards, whatever their directory."""
    facts = [f"{os.path.basename(shard.path)} {shard.num_bytes} {shard.num_records}\n" for shard in shards]
    return hashlib.sha256(os.fsencode("".join(facts))).hexdigest()[:16]


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
        start = _first_bytes(path)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not start:
        return "empty"
    if start.startswith(_GZIP_MAGIC):
        return "compressed with gzip, and records are read by offset (gunzip makes it readable)"
    return None if _is_header(start) else "not a TFRecord file"


def _first_bytes(path: str) -> bytes:
    """The first bytes of a file, as many as a header has; a storage's are read again before they count as wrong."""
    if not is_url(path):
        with open_regular(path, "rb", buffering=0) as file:
            return file.read(tfrecord.HEADER.size)
    size = min(tfrecord.HEADER.size, remote.describe_file(path).num_bytes)
    starts = (remote.read_range(path, 0, size, at_start=True) for _ in range(TRIES_OF_WRONG_BYTES))
    return next((start for start in starts if _is_header(start)), None) or remote.read_range(path, 0, size)


def _is_header(start: bytes) -> bool:
    return len(start) == tfrecord.HEADER.size and start == tfrecord.record_header(tfrecord.HEADER.unpack(start)[0])


class Manifest(NamedTuple):
    """The shards of a directory when they were checked."""

    num_records: int
    max_seq_length: int
    max_predictions_per_seq: int
    max_token_id: int  # of the records that were parsed
    fingerprint: str  # shard_files.fingerprint
    shards: dict[str, int]  # records of each


def require_manifest_writable(directory: str) -> None:
    """ValueError where write_manifest would fail."""
    path = os.path.join(directory, _MANIFEST)
    try:
        require_free_name("--input_files_dir", path)
    except ValueError as error:
        raise ValueError(f"{error}; or give --nowrite_manifest") from None


def write_manifest(directory: str, manifest: Manifest) -> None:
    """Writes the manifest of a directory, complete or not at all."""
    path = os.path.join(directory, _MANIFEST)
    try:
        write_json(path, manifest._asdict())
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); or give --nowrite_manifest") from None


def read_manifest(directory: str) -> Optional[Manifest]:
    """The manifest of a directory, None where there is none. ValueError for a file that is not a manifest."""
    path = os.path.join(directory, _MANIFEST)
    try:
        return _checked_manifest(Manifest(**json.loads(remote.read_path_or_url(path))))
    except FileNotFoundError:
        return None
    except OSError as error:
        if is_url(path):
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        raise ValueError(_not_a_manifest(path)) from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(_not_a_manifest(path)) from None


def _not_a_manifest(path: str) -> str:
    return f"{path}: not a manifest of bert_pretrain.check_data; remove it or check again"


def enforce_manifest(directory: str, shards: Sequence[ShardFile], seq_length: int, max_predictions: int) -> None:
    """ValueError where a directory has a manifest and its shards are no longer those of the manifest."""
    manifest = read_manifest(directory)
    if manifest is None:
        return
    found = {os.path.basename(shard.path): shard.num_records for shard in shards}
    problem = _difference(manifest, found)
    if problem is None and manifest.fingerprint != fingerprint(shards):
        problem = "a shard has another size"
    lengths = manifest.max_seq_length, manifest.max_predictions_per_seq
    if problem is None and lengths != (seq_length, max_predictions):
        problem = f"records of {lengths[0]} tokens and {lengths[1]} predictions, now {seq_length} and {max_predictions}"
    if problem is not None:
        raise ValueError(
            f"{directory}: the data differ from {_MANIFEST}: {problem}; "
            f"restore it, or run bert_pretrain.check_data again and accept what it finds"
        )


def _checked_manifest(manifest: Manifest) -> Manifest:
    """A manifest of the right types. TypeError or AttributeError for another."""
    numbers = [*manifest[:4], *manifest.shards.values()]
    if not all(isinstance(number, int) for number in numbers) or not isinstance(manifest.fingerprint, str):
        raise TypeError
    return manifest


def _difference(manifest: Manifest, found: dict[str, int]) -> Optional[str]:
    missing = sorted(set(manifest.shards) - set(found))
    new = sorted(set(found) - set(manifest.shards))
    other = sorted(name for name in found if found[name] != manifest.shards.get(name, found[name]))
    if missing:
        return f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    if new:
        return f"{new[0]} is new" + (f", and {len(new) - 1} more" if len(new) > 1 else "")
    if other:
        return f"{other[0]} has {found[other[0]]} records instead of {manifest.shards[other[0]]}"
    return None


def vocabulary_hash_of(shard: str) -> Optional[str]:
    """SHA-256 of the vocabulary with which a shard was made; None where no file of make_data says it."""
    return _vocabulary_hash(_read_side_file(shard))


def lower_case_of(shards: Sequence[str]) -> Optional[bool]:
    """Whether the text of the first shard was converted to lower case; None where no file of make_data says it."""
    origin = _read_side_file(shards[0]).get("origin") if shards else None
    settings = origin.get("settings") if isinstance(origin, dict) else None
    found = settings.get("do_lower_case") if isinstance(settings, dict) else None
    return found if isinstance(found, bool) else None


def vocabulary_file_of(shards: Sequence[str]) -> Optional[str]:
    """The vocabulary with which the first shard was made, where it can still be found; else None.

    It is the file that make_data read, or the vocab.txt in the shard's folder or in the one above. Its hash must be the
    one that the side file names.
    """
    content = _read_side_file(shards[0]) if shards else {}
    expected = _vocabulary_hash(content)
    if expected is None:
        return None
    for path in _vocabulary_candidates(shards[0], content):
        try:
            if hash_file(path) == expected:
                return path
        except OSError:
            continue
    return None


def _vocabulary_hash(content: dict[str, Any]) -> Optional[str]:
    origin = content.get("origin")
    found = origin.get("vocabulary") if isinstance(origin, dict) else None
    return found if isinstance(found, str) else None


def _vocabulary_candidates(shard: str, content: dict[str, Any]) -> Iterator[str]:
    named = content.get("vocab_file")
    if isinstance(named, str):
        yield named
    if is_url(shard):
        return
    folder = os.path.dirname(os.path.abspath(shard))
    yield os.path.join(folder, "vocab.txt")
    yield os.path.join(os.path.dirname(folder), "vocab.txt")


def _read_side_file(shard: str) -> dict[str, Any]:
    try:
        content = json.loads(read_path_or_url(f"{shard}.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
