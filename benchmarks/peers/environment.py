"""Environments of workers that cannot share ours: `python -m benchmarks.peers.environment WORKER` prints its Python.

Made at first use in the cache folder, from the pinned versions of benchmarks/peers/WORKER.txt. Other pins make another
environment; an attempt that was interrupted is made anew.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import venv

from bert_pretrain.system import files
from bert_pretrain.system.locks import locked_file

OWN = ("intel_extension",)


def python_of(worker: str) -> str:
    """The Python of the worker's environment. RuntimeError, which names the log, where it cannot be made."""
    pins = pathlib.Path(__file__).with_name(f"{worker}.txt")
    name = f"{worker}-py{sys.version_info[0]}.{sys.version_info[1]}-{files.hash_file(str(pins))[:12]}"
    folder = files.cache_directory("peers") / name
    python, finished = folder / "bin" / "python", folder / "finished"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(f"{folder}.lock"):
        if not finished.exists():
            _make(folder, python, pins)
            finished.touch()
    return str(python)


def _make(folder: pathlib.Path, python: pathlib.Path, pins: pathlib.Path) -> None:
    log = folder.with_suffix(".log")
    print(f"making {folder}, once; about 7 GB with torch's CUDA build, some minutes", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--requirement", str(pins)]
    with log.open("w") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        lines = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
        raise RuntimeError(
            f"{pins.name} cannot be installed: {lines[-1] if lines else f'pip ended with {code}'}; {log}"
        )


if __name__ == "__main__":
    print(python_of(sys.argv[1]))
