"""The provenance of an output: a JSON file beside it says what it was made from, and its size when it is finished.

It is written before the output gets its name, so that no output is ever without it, wherever the process is killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO, Any, NamedTuple, Optional

from bert_pretrain.make_data.corpus import Span
from bert_pretrain.system import files


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


def write_provenance(output: str, file: IO[Any], origin: Origin, facts: dict[str, Any]) -> None:
    """Describes `output` by its origin and facts; `file` holds all of its content and does not have that name yet."""
    file.flush()
    content = {"bytes": os.fstat(file.fileno()).st_size, **facts, "origin": origin._asdict()}
    files.write_json(_path(output), content)


def remove_partial_output(output: str) -> None:
    """Removes what killed processes left of `output` and its provenance."""
    files.remove_partials(output)
    files.remove_partials(_path(output))


def read_provenance(output: str) -> Optional[dict[str, Any]]:
    """What write_provenance wrote, or None."""
    try:
        with files.open_regular(_path(output)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def is_finished(output: str, origin: Origin, defaults: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether `output` is complete. ValueError if a file of that name has another or an unknown origin.

    defaults: settings that an older version, which did not know them, made the output with.
    """
    if not os.path.exists(output):
        return False
    found = read_provenance(output)
    if found is None:
        raise ValueError(f"{output}: exists already and was not written by make_data; move it away or name another")
    then = found.get("origin", {})
    then = {**then, "settings": {**defaults, **then.get("settings", {})}}
    if then == origin._asdict():
        return found.get("bytes") == os.path.getsize(output)
    raise ValueError(f"{output}: exists already, made from {_difference(then, origin)}; move it away or name another")


def _path(output: str) -> str:
    return output + ".json"


def _difference(then: dict[str, Any], origin: Origin) -> str:
    settings = then["settings"]
    for name, value in origin.settings.items():
        if settings.get(name) != value:
            return f"{name} {settings.get(name)} (now {value})"
    return "another vocabulary" if then.get("vocabulary") != origin.vocabulary else "other text, or text changed since"
