"""What a shard was made from, in a small JSON file beside it: the proof that it is finished, and of what."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from typing import Any, NamedTuple, Optional

from bert_pretrain.make_data.corpus import Span


class Origin(NamedTuple):
    """What decides a shard's bytes; a shard of the same origin need not be made again."""

    settings: dict[str, Any]
    vocabulary: str  # SHA-256 of the file
    text: list[dict[str, Any]]  # name, size and time of each text file, and which bytes of it


def describe_text(spans: tuple[Span, ...]) -> list[dict[str, Any]]:
    """Text files as an Origin has them."""
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
    """Says that `output` is finished."""
    content = {"bytes": os.path.getsize(output), **counts, "origin": origin._asdict()}
    partial = os.path.join(os.path.dirname(output), f".{os.path.basename(output)}.json.partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.replace(partial, _path(output))


def read(output: str) -> Optional[dict[str, Any]]:
    """What `write` said, or None."""
    try:
        with open(_path(output), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def is_finished(output: str, origin: Origin) -> bool:
    """Whether `output` need not be made again. ValueError where something else stands under its name."""
    if not os.path.exists(output):
        return False
    found = read(output)
    if found is None:
        raise ValueError(f"{output}: already there, and not known to be from make_data; move it away or name another")
    if found.get("origin") == origin._asdict():
        return found.get("bytes") == os.path.getsize(output)
    raise ValueError(f"{output}: already there, made from {_difference(found, origin)}; move it away or name another")


def remove_partial(output: str) -> None:
    """Removes what a killed process left of an attempt to write `output`."""
    directory = os.path.dirname(output) or "."
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if name.startswith(f".{os.path.basename(output)}.") and name.rpartition(".")[2].isdigit():
                os.remove(os.path.join(directory, name))


def _path(output: str) -> str:
    return output + ".json"


def _difference(found: dict[str, Any], origin: Origin) -> str:
    then = found.get("origin", {})
    settings = then.get("settings", {})
    for name, value in origin.settings.items():
        if settings.get(name) != value:
            return f"{name} {settings.get(name)} (now {value})"
    return "another vocabulary" if then.get("vocabulary") != origin.vocabulary else "other text, or text changed since"
