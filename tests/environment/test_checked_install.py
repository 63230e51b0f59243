"""pip installs what has a known hash, from a real index on this host, and nothing else of that name and version."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bert_pretrain.environment import checked_install
from bert_pretrain.environment.pins import canonical
from bert_pretrain.environment.versions import TESTED

ROOT = Path(__file__).parents[2]
WHEEL = "thing-1.0-py3-none-any.whl"


def write_wheel(path: Path, body: str) -> str:
    """A wheel of thing 1.0. Returns its SHA-256."""
    info = "thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("thing.py", body)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of an index of one package, whose wheel is tmp_path/simple/thing/WHEEL."""
    folder = tmp_path / "simple" / "thing"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def install(tmp_path: Path, known: str, *options: str, **environ: str) -> subprocess.CompletedProcess:
    """Installs thing into tmp_path/site, where `known` is the SHA-256 in the table."""
    (tmp_path / "hashes.txt").write_text(f"thing==1.0 {known}\n")
    program = (
        "import pathlib, sys; from bert_pretrain.environment import checked_install as c; "
        f"c._HASHES = pathlib.Path({str(tmp_path / 'hashes.txt')!r}); sys.exit(c.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *options, "thing"]
    settings = {"PIP_CONFIG_FILE": "/dev/null", "PIP_TARGET": str(tmp_path / "site"), "HOME": str(tmp_path)}
    return subprocess.run(command, env={**settings, **environ}, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_file_of_the_known_hash_is_installed_and_no_other(tmp_path: Path, index: str) -> None:
    known = write_wheel(tmp_path / "simple" / "thing" / WHEEL, "value = 1")
    variables = {"PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1"}
    assert install(tmp_path, known, **variables).returncode == 0
    assert (tmp_path / "site" / "thing.py").read_text() == "value = 1"

    (tmp_path / "site" / "thing.py").unlink()
    write_wheel(tmp_path / "simple" / "thing" / WHEEL, "value = 2")
    refused = install(tmp_path, known, **variables)
    assert refused.returncode != 0 and not (tmp_path / "site" / "thing.py").exists()
    assert f"{checked_install.SWITCH}=0" in refused.stderr
    assert install(tmp_path, known, **variables, **{checked_install.SWITCH: "0"}).returncode == 0
    assert (tmp_path / "site" / "thing.py").read_text() == "value = 2"


def test_a_local_wheel_of_its_own_is_taken_and_named(tmp_path: Path) -> None:
    write_wheel(tmp_path / WHEEL, "value = 3")
    done = install(tmp_path, "0" * 64, "--no-index", "--find-links", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "thing.py").read_text() == "value = 3"
    assert "no hash is known of thing 1.0" in done.stderr


def test_every_pin_has_hashes() -> None:
    hashes = checked_install.read_hashes()
    for python, versions in TESTED.items():
        for version in versions:
            text = (ROOT / "constraints" / f"tf{version}-py{python}.txt").read_text()
            pins = [line for line in text.splitlines() if line and not line.startswith("#")]
            assert all(hashes[pin] for pin in pins)
            assert all(pin.split("==")[0] == canonical(pin.split("==")[0]) for pin in pins)
