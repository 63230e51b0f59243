"""The source files of --make_text."""

from __future__ import annotations

import glob
import os


def find_files(patterns: str) -> list[str]:
    """The files that comma-separated patterns match, with all below matching folders; hidden files are left out.

    ValueError for a pattern without a match.
    """
    paths: list[str] = []
    for pattern in patterns.split(","):
        found: list[str] = []
        for path in sorted(glob.glob(pattern.strip())):
            found += _files_below(path) if os.path.isdir(path) else [path]
        if not found:
            raise ValueError(f"--input_file: no file matches {pattern.strip()}")
        paths += found
    return paths


def _files_below(directory: str) -> list[str]:
    found = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [os.path.join(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found
