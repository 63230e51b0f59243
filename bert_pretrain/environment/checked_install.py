"""python -m bert_pretrain.environment.checked_install [arguments of pip install]: installs files of known hashes.

pip says what it would install; what constraints/hashes.txt knows is installed first, by pip's --require-hashes, and the
rest by the command itself: the project, a vendor's wheels, local files of a version that is built here, and packages
without a pin, such as CUDA's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from bert_pretrain.environment.facts import print_to_stderr
from bert_pretrain.environment.pins import canonical
from bert_pretrain.environment.versions import PROJECT

SWITCH = "BERT_PRETRAIN_HASHES"
_HASHES = PROJECT / "constraints" / "hashes.txt"
_FIRST_PIP = (22, 2)  # that says what it would install
_OPTIONS = ("--quiet", "--no-input", "--disable-pip-version-check")


def is_on() -> bool:
    """Whether hashes are compared: not where the switch says so, nor with a pip that is too old for it."""
    if os.environ.get(SWITCH) == "0":
        return False
    version = metadata.version("pip")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _FIRST_PIP:
        print_to_stderr(f"note: pip {version} cannot say what it would install; the files' hashes are not compared")
    return numbers >= _FIRST_PIP


def read_hashes() -> dict[str, list[str]]:
    """'name==version' -> SHA-256 of each of its files on PyPI."""
    lines = (line.split() for line in _HASHES.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {pin: hashes for pin, *hashes in lines}


def requirement(pin: str, hashes: Mapping[str, Sequence[str]]) -> str:
    """A line of a requirements file."""
    return " ".join([pin, *(f"--hash=sha256:{one}" for one in hashes[pin])])


def main(arguments: Sequence[str]) -> int:
    """Installs. Returns pip's exit code."""
    pip = [sys.executable, "-m", "pip", "install"]
    if not is_on():
        return subprocess.run([*pip, *arguments], check=False).returncode
    hashes = read_hashes()
    with tempfile.TemporaryDirectory() as folder:
        environ = dict(os.environ)
        if environ.pop("PIP_NO_CACHE_DIR", None):  # else all would be downloaded twice
            environ["PIP_CACHE_DIR"] = os.path.join(folder, "cache")
        report, lines = Path(folder, "report.json"), Path(folder, "requirements.txt")
        code = subprocess.run([*pip, "--dry-run", "--report", report, *arguments], env=environ, check=False).returncode
        if code:
            return code
        known = list(_pins_to_install(json.loads(report.read_text(encoding="utf-8")), hashes))
        if known:
            lines.write_text("".join(f"{requirement(pin, hashes)}\n" for pin in known), encoding="utf-8")
            checked = [*_OPTIONS, "--no-deps", "--no-build-isolation", "--require-hashes", "--requirement", str(lines)]
            code = subprocess.run([*pip, *checked], env=environ, check=False).returncode
            if code:
                print_to_stderr(
                    f"error: what the package index has is not what {_HASHES} knows, or cannot be installed; for an "
                    f"index with builds of its own: {SWITCH}=0"
                )
                return code
        return subprocess.run([*pip, *arguments], env=environ, check=False).returncode


def _pins_to_install(report: Mapping[str, Any], hashes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The pins of what pip would install and whose hashes are known; names what else it would fetch."""
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        pin, url = f"{canonical(name)}=={version}", item["download_info"]["url"]
        if "dir_info" in item["download_info"]:
            continue
        if pin in hashes and not _is_other_local_file(url, hashes[pin]):
            yield pin
        else:
            print_to_stderr(f"note: no hash is known of {name} {version} ({url})")


def _is_other_local_file(url: str, hashes: Sequence[str]) -> bool:
    """True for a file on this machine that is not the one of PyPI."""
    parts = urlparse(url)
    return parts.scheme == "file" and hashlib.sha256(Path(unquote(parts.path)).read_bytes()).hexdigest() not in hashes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
