"""Compiles C++ into shared libraries for this machine, each once.

A library's file name has digests of what it depends on: sources, options and the CPU's instructions, then the compiler.
So machines with different CPUs can share a cache folder, an upgrade compiles a new library, and a machine without a
compiler finds what another one with the same CPU has compiled. What a compiler cannot compile is remembered beside it.

A library is code that runs as this user. It is loaded where nobody but this user and root can have written it: file,
folder and all folders above are looked at, as OpenSSH does with keys. The last digest in its name is that of its
contents, so one that a power loss or a disk has damaged is compiled again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import grp
import hashlib
import os
import platform
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bert_pretrain.system import files
from bert_pretrain.system.locks import locked_file

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
_SHORT = 16  # letters of a digest that tells versions apart; that of the contents is whole
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
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

        Where others could have written to the folder, or this process cannot, this user's own folder among the
        temporary files takes its place; who compiles then says so on stderr. UnavailableError without a compiler
        (unless a library for this machine is in the folder), when the compiler fails or has failed before, or when
        neither folder can be used.
        """
        name, compiler = self._file_name(), _compiler()
        if shutil.which(compiler):
            answer = subprocess.run([compiler, "--version"], capture_output=True, check=False)
            name = f"{name}-{_digest(answer.stdout)[:_SHORT]}"
        problems: list[str] = []
        for place in (folder, *_own_folders(folder.name)):
            try:
                problem = _make_trusted(place)
                if not problem:
                    return self._compile_once(place.resolve(), name, problems)
            except OSError as error:
                problem = f"{place} cannot be written to ({error.strerror})"
            problems.append(problem)
        raise UnavailableError("; ".join(problems))

    def _file_name(self) -> str:
        """The beginning of the name for this machine, whatever the compiler."""
        parts = [*(path.read_bytes() for path in self.sources), cpu_instructions()]
        parts += [text.encode() for text in (*self.versions, *self.compile_flags, *_option_sets()[0])]
        return f"{self.name}-{_digest(b'|'.join(parts))[:_SHORT]}"

    def _compile_once(self, folder: Path, name: str, problems: Sequence[str]) -> Path:
        """Compiles the library unless another process does so first: the ranks of a machine arrive together.

        problems: of the folder that this one replaces.
        """
        found = next((path for path in _candidates(folder, name) if not _why_not_loaded(path)), None)
        if found:
            return found
        if not shutil.which(_compiler()):
            raise UnavailableError("; ".join([*problems, f"there is no {_compiler()}"]))
        stem = folder / name
        with locked_file(f"{stem}.lock", f"; {_OTHER_FOLDER}"):
            for path in _candidates(folder, name):
                problem = _why_not_loaded(path)
                if not problem:
                    return path
                print(f"warning: {path} {problem} and is compiled again", file=sys.stderr, flush=True)
                path.unlink()
            _raise_remembered(Path(f"{stem}{_FAILED}"))
            for problem in problems:
                print(f"warning: {problem}; code is compiled into {folder} instead", file=sys.stderr, flush=True)
            if self.notice:
                print(self.notice, file=sys.stderr, flush=True)
            return self._compile(stem)

    def _compile(self, stem: Path) -> Path:
        """Compiles with the CPU's own options, else with fewer; remembers it where all of them fail."""
        errors: list[UnavailableError] = []
        for options in _option_sets():
            try:
                return self._compile_with(options, stem)
            except UnavailableError as error:
                errors.append(error)
                if _is_passing(str(error)):
                    break
        with files.atomic_write(f"{stem}{_FAILED}") as file:
            file.write(f"{errors[0]}\n")
        raise errors[0]

    def _compile_with(self, options: Sequence[str], stem: Path) -> Path:
        command = [_compiler(), *self.compile_flags, *options]
        with tempfile.TemporaryDirectory() as directory:
            units = [source for source in self.sources if source.suffix == ".cc"]
            objects = {source: Path(directory, source.stem).with_suffix(".o") for source in units}
            commands = [[*command, "-c", str(source), "-o", str(made)] for source, made in objects.items()]
            with concurrent.futures.ThreadPoolExecutor(files.num_cores()) as pool:
                list(pool.map(_run, commands))
            linked = Path(directory, f"{self.name}.so")
            _run([*command, "-shared", *map(str, objects.values()), "-o", str(linked), *self.link_flags])
            content = linked.read_bytes()
        path = Path(f"{stem}-{_digest(content)}.so")
        # The disk is not waited for: the digest in the name tells what a power loss has damaged.
        with files.atomic_write(str(path), "wb", is_durable=False) as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask
            file.write(content)
        return path


# --- What may be loaded ---


def _candidates(folder: Path, name: str) -> list[Path]:
    """The libraries in the folder whose names begin so, the newest first."""
    written = []
    for path in folder.glob(f"{name}-*.so"):
        with contextlib.suppress(FileNotFoundError):  # another process removed a damaged one
            written.append((path.lstat().st_mtime, path))
    return [path for _, path in sorted(written, reverse=True)]


def _why_not_loaded(path: Path) -> str:
    """Empty for a library that is whole and that no other user can have written; else what is wrong."""
    try:
        with open(path, "rb", opener=files.open_itself) as file:
            state = os.fstat(file.fileno())
            if state.st_uid not in (0, os.geteuid()):
                return f"belongs to user {state.st_uid}"
            if state.st_mode & _OTHERS_WRITE:
                return f"can be written to by other users (mode {stat.S_IMODE(state.st_mode):o})"
            is_whole = path.stem.endswith(f"-{_digest(file.read())}")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if is_whole else "is damaged"


def _make_trusted(folder: Path) -> Optional[str]:
    """Makes a folder that other users cannot write to. Returns why it is none. OSError where it cannot be made.

    What root makes can be read by others: an image of a container is made by root and used by somebody else.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(0o755, exist_ok=True)
    state = folder.stat()
    wanted = 0o755 if state.st_uid == 0 else 0o700
    if state.st_uid == os.geteuid() and stat.S_IMODE(state.st_mode) & ~wanted:
        with contextlib.suppress(OSError):
            folder.chmod(wanted)
    return _why_not_trusted(folder)


def _why_not_trusted(folder: Path) -> Optional[str]:
    """Who else could put a file into the folder, by its owner and mode or those of a folder above; None if nobody.

    A folder where all may write but each removes only what is their own, as /tmp, keeps a folder below it safe.
    """
    at = folder.resolve()
    for place in (at, *at.parents):
        state = place.stat()
        mode = stat.S_IMODE(state.st_mode)
        if state.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to user {state.st_uid}"
        is_writable = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_own_group(state.st_gid))
        if is_writable and not (mode & stat.S_ISVTX and place != at):
            return f"{place} can be written to by other users (mode {mode:o})"
    return None


def _is_own_group(number: int) -> bool:
    """True for the group of this user alone that many distributions make, with umask 002."""
    try:
        group, name = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _own_folders(name: str) -> list[Path]:
    """This user's folder among the temporary files, the same for all ranks of a machine; none without such files."""
    try:
        return [Path(tempfile.gettempdir(), f"bert_pretrain-{os.geteuid()}", name)]
    except FileNotFoundError:
        return []


def _raise_remembered(note: Path) -> None:
    """UnavailableError where the compiler has failed before, for as long as it would fail again."""
    try:
        with files.open_regular(str(note)) as file:
            reason, age = file.read().strip(), time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return
    if not _is_passing(reason) or age < _PASSING_SECONDS:
        raise UnavailableError(f"{reason} (remembered; to compile again, remove {note})")


def _is_passing(reason: str) -> bool:
    """True for an error that another attempt may not meet."""
    return any(text in reason for text in _PASSING)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
