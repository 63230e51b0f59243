"""TensorFlow releases, the Pythons that they have wheels for, and the combinations that are tested."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple, Optional

PROJECT = Path(__file__).resolve().parent.parent.parent


class Release(NamedTuple):
    """The newest patch release of a TensorFlow version, and the first and last Python 3 that it has wheels for."""

    version: str
    first_python: int
    last_python: int
    bounds: tuple[str, ...] = ()  # what TensorFlow's own requirements should say and do not


_OLD = ("protobuf<3.20", "numpy<1.24")  # protobuf 4 refuses the generated code; NumPy 1.24 has no np.object, np.bool
RELEASES = (
    Release("2.6.5", 8, 9, _OLD),
    Release("2.7.4", 8, 9, _OLD),
    Release("2.8.4", 8, 10, _OLD),
    Release("2.9.3", 8, 10, _OLD),
    Release("2.10.1", 8, 10, _OLD),
    Release("2.11.1", 8, 10, _OLD),
    Release("2.12.1", 8, 11),
    Release("2.13.1", 8, 11),
    Release("2.14.1", 9, 11, ("numpy<2",)),
    Release("2.15.1", 9, 11, ("numpy<2",)),
    Release("2.16.2", 9, 12),
    Release("2.17.1", 9, 12),
    Release("2.18.1", 9, 12),
    Release("2.19.1", 9, 12),
    Release("2.20.0", 9, 13),
    Release("2.21.0", 10, 13),
)
# Python -> the releases that scripts/run_matrix.sh tests with it. The last one is what init_tf.sh installs by default.
# constraints/ has a file for each; scripts/make_constraints.sh makes them.
TESTED = {
    "3.8": ("2.6.5", "2.13.1"),
    "3.9": ("2.15.1", "2.20.0"),
    "3.10": ("2.15.1", "2.21.0"),
    "3.11": ("2.15.1", "2.21.0"),
    "3.12": ("2.21.0",),
    "3.13": ("2.21.0",),
}
_SUPPORTED = f"TensorFlow {RELEASES[0].version} to {RELEASES[-1].version} on Python 3.8 to 3.13"


def this_python() -> str:
    """The running Python, as '3.12'."""
    return ".".join(map(str, sys.version_info[:2]))


def combination(version: str, python: str) -> str:
    """The name of a combination: 'tf2.15.1-py3.11'."""
    return f"tf{version}-py{python}"


def minor_version(version: str) -> tuple[int, int]:
    """(2, 15) of '2.15', '2.15.1' or '2.15.0+vendor.1'; (0, 0) of what is not a version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_same_release(one: str, other: str) -> bool:
    """Whether two versions are of one release: a vendor's suffix, as in 2.6.5+corex.3.1, does not count."""
    return one.partition("+")[0] == other.partition("+")[0]


def find_release(version: str) -> Optional[Release]:
    """The row of RELEASES for a version; None if it is not supported."""
    return next((release for release in RELEASES if minor_version(release.version) == minor_version(version)), None)


def supported_release(version: str) -> Release:
    """The row of RELEASES for a version. ValueError if it is not supported."""
    release = find_release(version)
    if release is None:
        newest = RELEASES[-1].version
        raise ValueError(
            f"TensorFlow {version} is not supported; {_SUPPORTED} are: bash init_tf.sh --tensorflow={newest}"
        )
    return release


def supported_pythons(release: Release) -> list[str]:
    """The Pythons that the release has wheels for, as ['3.9', '3.10', '3.11']."""
    return [f"3.{number}" for number in range(release.first_python, release.last_python + 1)]


def choose_version(requested: str, python: str) -> str:
    """The version to install: the requested one, or without one the default of this Python.

    ValueError with what was found, what is supported and a command, if they do not go together.
    """
    if python not in TESTED:
        raise ValueError(f"found Python {python}; supported are {_SUPPORTED}: install python3.12 with its venv module")
    if not requested:
        return TESTED[python][-1]
    release = supported_release(requested)
    pythons = supported_pythons(release)
    if python not in pythons:
        raise ValueError(
            f"found Python {python}; TensorFlow {requested} has wheels for {', '.join(pythons)}: install "
            f"python{pythons[-1]} with its venv module, or: bash init_tf.sh --tensorflow={TESTED[python][-1]}"
        )
    return requested


def full_version(version: str) -> str:
    """A requested version with its patch number: '2.15' is the newest 2.15. ValueError if it is not supported."""
    release = supported_release(version)
    return version if version.count(".") > 1 else release.version
