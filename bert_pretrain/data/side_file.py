"""The JSON file that make_data writes beside a shard, as far as training and export need it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from bert_pretrain.storage.remote import read_contents
from bert_pretrain.system.files import hash_file, is_url


def vocabulary_hash(shard: str) -> Optional[str]:
    """SHA-256 of the vocabulary with which a shard was made; None where no file of make_data says it."""
    return _vocabulary_hash(_read(shard))


def lower_case(shards: Sequence[str]) -> Optional[bool]:
    """Whether the text of the first shard was converted to lower case; None where no file of make_data says it."""
    origin = _read(shards[0]).get("origin") if shards else None
    settings = origin.get("settings") if isinstance(origin, dict) else None
    found = settings.get("do_lower_case") if isinstance(settings, dict) else None
    return found if isinstance(found, bool) else None


def vocabulary_file(shards: Sequence[str]) -> Optional[str]:
    """The vocabulary with which the first shard was made, where it can still be found; else None.

    It is the file that make_data read, or the vocab.txt in the shard's folder or in the one above. Its hash must be the
    one that the side file names.
    """
    content = _read(shards[0]) if shards else {}
    expected = _vocabulary_hash(content)
    if expected is None:
        return None
    for path in _candidates(shards[0], content):
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


def _candidates(shard: str, content: dict[str, Any]) -> Iterator[str]:
    named = content.get("vocab_file")
    if isinstance(named, str):
        yield named
    if is_url(shard):
        return
    folder = os.path.dirname(os.path.abspath(shard))
    yield os.path.join(folder, "vocab.txt")
    yield os.path.join(os.path.dirname(folder), "vocab.txt")


def _read(shard: str) -> dict[str, Any]:
    try:
        content = json.loads(read_contents(f"{shard}.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
