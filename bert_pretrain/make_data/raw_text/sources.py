"""The files of raw text: which there are, and what form each has."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_FORMS = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "rst", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


class Source(NamedTuple):
    """A file of raw text, or a piece of one."""

    path: str
    form: str  # one of _FORMS' values
    compression: str  # one of COMPRESSIONS, or nothing
    num_bytes: int
    start: int = 0  # of a piece: its first byte; of a Parquet file its first row group
    end: int = 0  # and the one after its last; 0 where this is the whole file

    @property
    def is_piece(self) -> bool:
        """Whether this is a part of a file."""
        return self.end > 0

    @property
    def is_beginning(self) -> bool:
        """Whether this is a whole file or its first piece."""
        return self.start == 0

    def whole(self) -> Source:
        """The file that this is a piece of; of num_bytes of the piece."""
        return self._replace(start=0, end=0)


def find_sources(patterns: str) -> tuple[list[Source], Counter]:
    """The files that comma-separated patterns match, with all below matching folders; hidden files are left out.

    Within folders, files of other suffixes are left out, too; the Counter has their number by suffix. A file that a
    pattern names itself is text if its suffix is unknown. ValueError for a pattern without a match, and where nothing
    is left.
    """
    found: dict[str, Source] = {}
    left_out: Counter = Counter()
    for pattern in patterns.split(","):
        matches = sorted(glob.glob(pattern.strip()))
        if not matches:
            raise ValueError(f"--input_file: no file matches {pattern.strip()}")
        for match in matches:
            in_folder = os.path.isdir(match)
            for path in _files_below(match) if in_folder else [match]:
                stem, compression = _without_compression(path)
                suffix = os.path.splitext(stem)[1].lower()
                if in_folder and suffix not in _FORMS:
                    left_out[suffix] += 1
                elif os.path.getsize(path):
                    form = _FORMS.get(suffix, "text")
                    found.setdefault(os.path.abspath(path), Source(path, form, compression, os.path.getsize(path)))
                else:
                    left_out["(empty)"] += 1
    if not found:
        raise ValueError(
            f"--input_file: {patterns} holds no text ({describe(left_out) or 'no files'}); "
            f"known are {', '.join(sorted(filter(None, _FORMS)))}, also with {', '.join(COMPRESSIONS)}"
        )
    return list(found.values()), left_out


def describe(left_out: Counter) -> str:
    """Files by suffix, the most frequent first, in one line."""
    named = [f"{number} {suffix}" for suffix, number in left_out.most_common(8)]
    return ", ".join(named) + (", and others" if len(left_out) > len(named) else "")


def _without_compression(path: str) -> tuple[str, str]:
    stem, suffix = os.path.splitext(path)
    return (stem, suffix.lower()) if suffix.lower() in COMPRESSIONS else (path, "")


def _files_below(directory: str) -> Iterator[str]:
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if os.path.isfile(path))
