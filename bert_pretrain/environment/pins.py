"""The version of every package for a combination of TensorFlow and Python, as text for pip's --constraint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bert_pretrain.environment.versions import PROJECT, TESTED, combination, minor_version, supported_release

# Packages whose versions depend on TensorFlow's or NumPy's. A combination without a file of its own takes the nearest
# file less these, which pip then chooses.
TENSORFLOW_DEPENDENT = frozenset(
    """absl-py astunparse cachetools clang contourpy flatbuffers gast google-auth google-auth-oauthlib google-pasta
    grpcio h5py keras keras-preprocessing libclang markdown matplotlib ml-dtypes namex numpy oauthlib opt-einsum optree
    packaging pandas protobuf pyasn1 pyasn1-modules requests-oauthlib rsa scipy six tensorboard tensorboard-data-server
    tensorboard-plugin-wit tensorflow tensorflow-cpu tensorflow-estimator tensorflow-io-gcs-filesystem termcolor
    typing-extensions werkzeug wrapt""".split()
)


def canonical(name: str) -> str:
    """The name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def nearest_file(version: str, python: str) -> Path:
    """The file in constraints/ of this Python's tested release that is nearest to the version."""
    nearest = min(TESTED[python], key=lambda tested: abs(minor_version(tested)[1] - minor_version(version)[1]))
    return PROJECT / "constraints" / f"{combination(nearest, python)}.txt"


def pins(version: str, python: str) -> str:
    """The combination's file. Without one, the nearest file less what depends on TensorFlow."""
    if version in TESTED[python]:
        return nearest_file(version, python).read_text(encoding="utf-8")
    exact = [f"{name}=={version}" for name in ("tensorflow", "tensorflow-cpu")]
    return _join([*exact, *supported_release(version).bounds, *_independent(version, python)])


def pins_around(installed: Mapping[str, str], version: str, python: str) -> str:
    """Pins for an environment that is kept: what it has stays; the rest is the nearest file's, or older where need be.

    The nearest file's versions may need newer packages than those that stay, as huggingface-hub needs another click.
    """
    kept = [f"{name}=={number}" for name, number in sorted(installed.items()) if name != "bert-pretrain"]
    newest = [line.replace("==", "<=") for line in _independent(version, python)]
    added = [*supported_release(version).bounds, *newest]
    return _join([*kept, *(line for line in added if _name(line) not in installed)])


def _independent(version: str, python: str) -> list[str]:
    lines = nearest_file(version, python).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#") and _name(line) not in TENSORFLOW_DEPENDENT]


def _name(requirement: str) -> str:
    return canonical(re.split("[=<]", requirement)[0])


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
