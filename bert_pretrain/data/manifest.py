"""manifest.json beside shards: their state when check_data checked them, which training then requires."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import NamedTuple, Optional

from bert_pretrain.data.shard_files import ShardFile, fingerprint
from bert_pretrain.storage import remote
from bert_pretrain.system.files import is_url, write_json

_NAME = "manifest.json"


class Manifest(NamedTuple):
    """The shards of a directory when they were checked."""

    num_records: int
    max_seq_length: int
    max_predictions_per_seq: int
    max_token_id: int  # of the records that were parsed
    fingerprint: str  # shard_files.fingerprint
    shards: dict[str, int]  # records of each


def write(directory: str, manifest: Manifest) -> None:
    """Writes the manifest of a directory, complete or not at all."""
    path = os.path.join(directory, _NAME)
    try:
        write_json(path, manifest._asdict())
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); or give --nowrite_manifest") from None


def read(directory: str) -> Optional[Manifest]:
    """The manifest of a directory, None where there is none. ValueError for a file that is not a manifest."""
    path = os.path.join(directory, _NAME)
    try:
        return _checked(Manifest(**json.loads(remote.read_contents(path))))
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


def enforce(directory: str, shards: Sequence[ShardFile], seq_length: int, max_predictions: int) -> None:
    """ValueError where a directory has a manifest and its shards are no longer those of the manifest."""
    manifest = read(directory)
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
            f"{directory}: the data differ from {_NAME}: {problem}; "
            f"restore it, or run bert_pretrain.check_data again and accept what it finds"
        )


def _checked(manifest: Manifest) -> Manifest:
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
