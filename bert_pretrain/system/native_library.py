"""Compiles C++ into shared libraries for this machine, each once.

A library's file name has digests of what it depends on: sources, options and the CPU's instructions, then the compiler.
So machines with different CPUs can share a cache folder, an upgrade compiles a new library, and a machine without a
compiler finds what another one with the same CPU has compiled. What a compiler cannot compile is remembered beside it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bert_pretrain.system import files
from bert_pretrain.system.locks import locked_file, owner_name

_OPTIONS = ["-O3", "-fPIC", "-fno-math-errno", "-DNDEBUG"]
# Named levels of x86-64, for a compiler that fails with the CPU's own: instructions that a CPU must have -> options.
_LEVELS = (
    ("avx512f avx512dq avx512bw avx512vl avx512cd", ["-march=skylake-avx512", "-mprefer-vector-width=512"]),
    ("avx2 bmi1 bmi2 fma f16c", ["-march=haswell"]),
    ("sse4_2 popcnt", ["-march=nehalem"]),
)
# Errors that another attempt may not meet, and seconds for which they are remembered: the ranks of a host ask in turn.
_PASSING = (
    "Killed",
    "exit code -",
    "memory exhausted",
    "out of memory",
    "Cannot allocate memory",
    "No space left on device",
)
_PASSING_SECONDS = 600.0
_FAILED = ".failed"  # suffix of the note
_OTHER_FOLDER = "BERT_PRETRAIN_CACHE=DIR chooses another folder"


class UnavailableError(RuntimeError):
    """This machine cannot compile or load a library; the message says why, in a few words."""


class NativeLibrary(NamedTuple):
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
        fails or has failed before, or when the folder cannot be written to.
        """
        path = self.path(folder)
        if not path.exists():
            self._compile_once(path)
        return path

    def path(self, folder: Path) -> Path:
        """This compiler's library for this machine, which may not exist yet; without a compiler, the newest of any."""
        parts = [*(path.read_bytes() for path in self.sources), cpu_instructions()]
        parts += [text.encode() for text in (*self.versions, *self.compile_flags, *_option_sets()[0])]
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
            with locked_file(str(path.with_suffix(".lock")), f"; {_OTHER_FOLDER}"):
                if not path.exists():
                    _raise_remembered(path.with_suffix(_FAILED))
                    if self.notice:
                        print(self.notice, file=sys.stderr, flush=True)
                    self._compile(path)
        except OSError as error:
            raise UnavailableError(f"cannot compile into {path.parent}: {_explain(error)}") from None

    def _compile(self, path: Path) -> None:
        """Compiles with the CPU's own options, else with fewer; remembers it where all of them fail."""
        errors: list[UnavailableError] = []
        for options in _option_sets():
            try:
                self._compile_with(options, path)
                return
            except UnavailableError as error:
                errors.append(error)
                if _is_passing(str(error)):
                    break
        with files.atomic_write(str(path.with_suffix(_FAILED))) as file:
            file.write(f"{errors[0]}\n")
        raise errors[0]

    def _compile_with(self, options: Sequence[str], path: Path) -> None:
        command = [_compiler(), *self.compile_flags, *options]
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


def _raise_remembered(note: Path) -> None:
    """UnavailableError where the compiler has failed before, for as long as it would fail again."""
    try:
        reason, age = note.read_text(encoding="utf-8").strip(), time.time() - note.stat().st_mtime
    except OSError:
        return
    if not _is_passing(reason) or age < _PASSING_SECONDS:
        raise UnavailableError(f"{reason} (remembered; to compile again, remove {note})")


def _is_passing(reason: str) -> bool:
    """True for an error that another attempt may not meet."""
    return any(text in reason for text in _PASSING)


def _explain(error: OSError) -> str:
    """The error; whose file it is where another user's is in the way."""
    with contextlib.suppress(OSError):
        if isinstance(error, PermissionError) and os.stat(error.filename).st_uid != os.geteuid():
            return f"{error.filename} belongs to {owner_name(error.filename)}; {_OTHER_FOLDER}"
    return error.strerror or str(error)


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


def _option_sets() -> list[list[str]]:
    """Options for exactly this CPU, then for named levels below it, which an old or faulty compiler may need.

    512-bit vectors are used where the CPU has them: the loops here are long. AVX512-FP16 is left out, because Eigen's
    header for it, which TensorFlow 2.21 brings, does not compile (PacketMathFP16.h, g++ 12).
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return [[*_OPTIONS, "-mcpu=native"], _OPTIONS]
    has = set(cpu_instructions().decode().split())
    native = ["-march=native", *(["-mprefer-vector-width=512"] if "avx512f" in has else [])]
    own = [[*native, "-mno-avx512fp16"], native] if "avx512_fp16" in has else [native]
    levels = [options for needed, options in _LEVELS if has.issuperset(needed.split())]
    return [[*_OPTIONS, *options] for options in (*own, *levels[:1])]


def _run(command: list[str]) -> None:
    """Runs the compiler. UnavailableError with its first error message when it fails."""
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode:
        errors = (line for line in answer.stderr.splitlines() if "error: " in line)
        first = next(errors, f"exit code {answer.returncode}")
        raise UnavailableError(f"{Path(command[0]).name} failed: {first.strip()}")
