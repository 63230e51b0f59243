"""Compiles the C++ operations for this machine, once, and loads them.

The library's file name is a digest of what it depends on: sources, compiler, TensorFlow, the CPU's instructions. So
machines with different CPUs can share a cache folder, and an upgrade compiles a new library.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import tensorflow as tf

from bert_pretrain import compat, files

_SOURCES = Path(__file__).parent / "sources"
_OPTIONS = ["-O3", "-fPIC", "-fno-math-errno", "-DNDEBUG"]


class UnavailableError(RuntimeError):
    """This machine cannot compile or load the operations; the message says why, in a few words."""


@functools.lru_cache(maxsize=None)
def library() -> ModuleType:
    """The operations as Python functions; compiles them first if this machine has not done so (half a minute).

    UnavailableError without a compiler, when it fails, or when the cache folder cannot be written to.
    """
    path = _path()
    if not path.exists():
        _compile_once(path)
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        raise UnavailableError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None


def _path() -> Path:
    """The file of this machine's library, which may not exist yet."""
    parts = [*(path.read_bytes() for path in sorted(_SOURCES.iterdir())), _compiler_version(), _cpu()]
    parts += [option.encode() for option in (tf.__version__, *compat.compile_flags(), *_options())]
    digest = hashlib.sha256(b"|".join(parts)).hexdigest()[:16]
    return files.cache_directory("kernels") / f"operations-{digest}.so"


def _compiler() -> str:
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(f"there is no {name}")
    return path


def _compiler_version() -> bytes:
    answer = subprocess.run([_compiler(), "--version"], capture_output=True, check=False)
    return answer.stdout


def _cpu() -> bytes:
    """The instruction sets that the CPU has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine().encode()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))})).encode()


def _options() -> list[str]:
    """Options for exactly this CPU. 512-bit vectors are used where it has them: the loops here are long."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [*_OPTIONS, "-mcpu=native"]
    wide = ["-mprefer-vector-width=512"] if b"avx512f" in _cpu() else []
    return [*_OPTIONS, "-march=native", *wide]


def _compile_once(path: Path) -> None:
    """Compiles the library unless another process does so first: the ranks of a machine arrive together."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                print("Compiling kernels for this CPU, once (about half a minute)", file=sys.stderr, flush=True)
                _compile(path)
    except OSError as error:
        raise UnavailableError(f"cannot compile into {path.parent}: {error.strerror}") from None


def _compile(path: Path) -> None:
    command = [_compiler(), *compat.compile_flags(), *_options()]
    with tempfile.TemporaryDirectory() as directory:
        objects = {source: Path(directory, source.stem).with_suffix(".o") for source in sorted(_SOURCES.glob("*.cc"))}
        commands = [[*command, "-c", str(source), "-o", str(made)] for source, made in objects.items()]
        with concurrent.futures.ThreadPoolExecutor(files.num_cores()) as pool:
            list(pool.map(_run, commands))
        linked = Path(directory, path.name)
        _run([*command, "-shared", *map(str, objects.values()), "-o", str(linked), *tf.sysconfig.get_link_flags()])
        with files.atomic_write(str(path), "wb") as file:
            file.write(linked.read_bytes())


def _run(command: list[str]) -> None:
    """Runs the compiler. UnavailableError with its first error message when it fails."""
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        first = next((line for line in answer.stderr.splitlines() if "error" in line), f"exit code {answer.returncode}")
        raise UnavailableError(f"{Path(command[0]).name} failed: {first.strip()}")
