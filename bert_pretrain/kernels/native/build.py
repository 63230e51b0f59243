"""Compiling the operations for this machine, once, and loading them.

The file's name is a digest of all that it depends on: sources, compiler, TensorFlow, the CPU's instructions. Machines
that share an environment but not a CPU each have their own, and after an upgrade a new one is made.
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

_SOURCES = Path(__file__).parent / "sources"
_OPTIONS = ["-O3", "-fPIC", "-fno-math-errno", "-DNDEBUG"]


class UnavailableError(RuntimeError):
    """The operations cannot be had here; the message says why, in a few words."""


@functools.cache
def library() -> ModuleType:
    """The operations as Python functions, compiled first where that was not done yet (half a minute).

    UnavailableError where there is no compiler, or it fails.
    """
    path = _path()
    if not path.exists():
        with open(path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of a machine arrive together
            if not path.exists():
                print("Compiling kernels for this CPU, once (about half a minute)", file=sys.stderr, flush=True)
                _compile(path)
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        raise UnavailableError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None


def _path() -> Path:
    """Where the library of this machine is or goes."""
    parts = [*(path.read_bytes() for path in sorted(_SOURCES.iterdir())), _compiler_version(), _cpu()]
    parts += [option.encode() for option in (tf.__version__, *tf.sysconfig.get_compile_flags(), *_options())]
    return _directory() / f"operations-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"


def _directory() -> Path:
    """In the environment; in the person's cache where the environment is not theirs to write to."""
    for parent in (Path(sys.prefix), Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")):
        directory = parent / "bert_pretrain-native"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    raise UnavailableError(f"neither {sys.prefix} nor the home directory can be written to")


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
    """The instructions that the CPU knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine().encode()
    return "\n".join({line for line in lines if line.startswith(("flags", "Features"))}).encode()


def _options() -> list[str]:
    """For this very CPU. Where it has 512-bit vectors they are used: the loops here are long."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [*_OPTIONS, "-mcpu=native"]
    wide = ["-mprefer-vector-width=512"] if b"avx512f" in _cpu() else []
    return [*_OPTIONS, "-march=native", *wide]


def _compile(path: Path) -> None:
    """All of it or nothing: the library gets its name when it is whole."""
    command = [_compiler(), *tf.sysconfig.get_compile_flags(), *_options()]
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        objects = {source: Path(directory, source.stem).with_suffix(".o") for source in sorted(_SOURCES.glob("*.cc"))}
        commands = [[*command, "-c", str(source), "-o", str(made)] for source, made in objects.items()]
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(_run, commands))
        made = Path(directory, path.name)
        _run([*command, "-shared", *map(str, objects.values()), "-o", str(made), *tf.sysconfig.get_link_flags()])
        os.replace(made, path)


def _run(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        first = next((line for line in answer.stderr.splitlines() if "error" in line), f"exit code {answer.returncode}")
        raise UnavailableError(f"{Path(command[0]).name} failed: {first.strip()}")
