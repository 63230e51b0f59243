"""The provenance of an output: a JSON file beside it says that it is finished, and what it was made from."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from typing import Any, NamedTuple, Optional

from bert_pretrain.files import write_json
from bert_pretrain.make_data.corpus import Span


class Origin(NamedTuple):
    """Everything that the bytes of an output depend on; an output of the same origin need not be made again."""

    settings: dict[str, Any]
    vocabulary: str  # SHA-256 of the file
    text: list[dict[str, Any]]  # name, size and modification time of each text file, and the bytes used


def describe_text(spans: tuple[Span, ...]) -> list[dict[str, Any]]:
    """Text files in the form of Origin.text."""
    described = []
    for span in spans:
        facts = os.stat(span.path)
        described.append(
            {
                "name": os.path.basename(span.path),
                "size": facts.st_size,
                "modified_ns": facts.st_mtime_ns,
                "start": span.start,
                "end": span.end,
            }
        )
    return described


@functools.lru_cache(maxsize=8)
def hash_file(path: str) -> str:
    """SHA-256 of a small file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write(output: str, origin: Origin, counts: dict[str, int]) -> None:
    """Marks `output` as finished."""
    content = {"bytes": os.path.getsize(output), **counts, "origin": origin._asdict()}
    write_json(_path(output), content)


def read(output: str) -> Optional[dict[str, Any]]:
    """What `write` wrote, or None."""
    try:
        with open(_path(output), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def is_finished(output: str, origin: Origin) -> bool:
    """Whether `output` is complete. ValueError if a file of that name has another or an unknown origin."""
    if not os.path.exists(output):
        return False
    found = read(output)
    if found is None:
        raise ValueError(f"{output}: exists already and was not written by make_data; move it away or name another")
    if found.get("origin") == origin._asdict():
        return found.get("bytes") == os.path.getsize(output)
    raise ValueError(f"{output}: exists already, made from {_difference(found, origin)}; move it away or name another")


def _path(output: str) -> str:
    return output + ".json"


def _difference(found: dict[str, Any], origin: Origin) -> str:
    then = found.get("origin", {})
    settings = then.get("settings", {})
    for name, value in origin.settings.items():
        if settings.get(name) != value:
            return f"{name} {settings.get(name)} (now {value})"
    return "another vocabulary" if then.get("vocabulary") != origin.vocabulary else "other text, or text changed since"
