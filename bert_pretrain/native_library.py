"""Compiles C++ into shared libraries for this machine, each once.

A library's file name has digests of what it depends on: sources, options and the CPU's instructions, then the compiler.
So machines with different CPUs can share a cache folder, an upgrade compiles a new library, and a machine without a
compiler finds what another one with the same CPU has compiled.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bert_pretrain import files

_OPTIONS = ["-O3", "-fPIC", "-fno-math-errno", "-DNDEBUG"]


class UnavailableError(RuntimeError):
    """This machine cannot compile or load a library; the message says why, in a few words."""


class Library(NamedTuple):
    """C++ sources and headers, and how to compile them."""

    name: str
    sources: Sequence[Path]
    versions: Sequence[str] = ()  # of what it is compiled against
    compile_flags: Sequence[str] = ()
    link_flags: Sequence[str] = ()
    notice: str = ""  # is printed before it is compiled

    def compiled(self, folder: Path) -> Path:
        """The shared library in a folder of the cache; compiles it if no process has done so.

        UnavailableError without a compiler (unless a library for this machine is in the folder), when the compiler
        fails, or when the folder cannot be written to.
        """
        path = self.path(folder)
        if not path.exists():
            self._compile_once(path)
        return path

    def path(self, folder: Path) -> Path:
        """This compiler's library for this machine, which may not exist yet; without a compiler, the newest of any."""
        parts = [*(path.read_bytes() for path in self.sources), cpu_instructions()]
        parts += [text.encode() for text in (*self.versions, *self.compile_flags, *_options())]
        name = f"{self.name}-{_digest(b'|'.join(parts))}"
        compiler = _compiler()
        if shutil.which(compiler):
            answer = subprocess.run([compiler, "--version"], capture_output=True, check=False)
            return folder / f"{name}-{_digest(answer.stdout)}.so"
        compiled = sorted(folder.glob(f"{name}-*.so"), key=os.path.getmtime)
        if not compiled:
            raise UnavailableError(f"there is no {compiler}")
        return compiled[-1]

    def _compile_once(self, path: Path) -> None:
        """Compiles the library unless another process does so first: the ranks of a machine arrive together."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.lock(str(path.with_suffix(".lock"))):
                if not path.exists():
                    if self.notice:
                        print(self.notice, file=sys.stderr, flush=True)
                    self._compile(path)
        except OSError as error:
            raise UnavailableError(f"cannot compile into {path.parent}: {error.strerror}") from None

    def _compile(self, path: Path) -> None:
        command = [_compiler(), *self.compile_flags, *_options()]
        with tempfile.TemporaryDirectory() as directory:
            units = [source for source in self.sources if source.suffix == ".cc"]
            objects = {source: Path(directory, source.stem).with_suffix(".o") for source in units}
            commands = [[*command, "-c", str(source), "-o", str(made)] for source, made in objects.items()]
            with concurrent.futures.ThreadPoolExecutor(files.num_cores()) as pool:
                list(pool.map(_run, commands))
            linked = Path(directory, path.name)
            _run([*command, "-shared", *map(str, objects.values()), "-o", str(linked), *self.link_flags])
            with files.atomic_write(str(path), "wb") as file:
                file.write(linked.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


def cpu_instructions() -> bytes:
    """The instruction sets that the CPU has."""
    try:
        return _instructions(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return platform.machine().encode()


def _instructions(cpuinfo: str) -> bytes:
    """The lines on instruction sets, which may differ between cores, in one order."""
    return "\n".join(sorted({line for line in cpuinfo.splitlines() if line.startswith(("flags", "Features"))})).encode()


def _options() -> list[str]:
    """Options for exactly this CPU. 512-bit vectors are used where it has them: the loops here are long."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [*_OPTIONS, "-mcpu=native"]
    wide = ["-mprefer-vector-width=512"] if b"avx512f" in cpu_instructions() else []
    return [*_OPTIONS, "-march=native", *wide]


def _run(command: list[str]) -> None:
    """Runs the compiler. UnavailableError with its first error message when it fails."""
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        first = next((line for line in answer.stderr.splitlines() if "error" in line), f"exit code {answer.returncode}")
        raise UnavailableError(f"{Path(command[0]).name} failed: {first.strip()}")
