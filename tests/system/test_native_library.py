"""Compiling a shared library for this machine, once, and finding it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable

import pytest

from bert_pretrain.system import native_library
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError, _option_sets
from tests.system.test_locks import refuse_locks

ROOT = Path(__file__).parents[2]
WRITE_NOTHING = 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"'


@pytest.fixture
def library(tmp_path: Path) -> NativeLibrary:
    """A function that adds the constant of a header."""
    (tmp_path / "one.h").write_text("constexpr int kOne = 1;\n")
    (tmp_path / "add.cc").write_text('#include "one.h"\nextern "C" int Add(int number) { return number + kOne; }\n')
    return NativeLibrary(
        "add", [tmp_path / "add.cc", tmp_path / "one.h"], ["2.0"], ["-std=c++14"], notice="Compiling once"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where libraries are kept; it does not exist yet."""
    return tmp_path / "cache" / "libraries"


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that is each test's own."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def own_folder(tmp_path: Path) -> Path:
    """Where this user's libraries are kept if the cache is not to be trusted."""
    return tmp_path / "tmp" / f"bert_pretrain-{os.geteuid()}" / "libraries"


def set_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Makes a shell script the compiler."""
    path = directory / "compiler"
    path.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit 0\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_library_is_compiled_once_and_can_be_called(
    library: NativeLibrary, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    path = library.compiled(folder)
    assert ctypes.CDLL(str(path)).Add(41) == 42
    assert library.compiled(folder) == path
    assert capfd.readouterr().err == "Compiling once\n"
    (tmp_path / "one.h").write_text("constexpr int kOne = 2;\n")
    assert ctypes.CDLL(str(library.compiled(folder))).Add(40) == 42


def test_a_missing_compiler_is_named(library: NativeLibrary, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnavailableError, match=r"^there is no no-such-compiler$"):
        library.compiled(folder)


def test_the_error_of_a_compiler_that_fails_is_quoted_and_no_file_is_left(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, "echo 'in errors.h:1' >&2; echo 'op.h:7: error: C++17 is needed' >&2; exit 1")
    with pytest.raises(UnavailableError, match=r"^compiler failed: op\.h:7: error: C\+\+17 is needed$"):
        library.compiled(folder)
    assert not list(folder.glob("*.so"))


def test_a_compiler_that_fails_with_the_own_options_of_the_cpu_gets_fewer(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: sse4_2 popcnt avx avx2 bmi1 bmi2 fma f16c")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    fails = f'case "$*" in *-march=native*) echo "error: no" >&2; exit 1;; esac; echo "$*" >> {tmp_path}/calls'
    set_compiler(tmp_path, monkeypatch, f"{fails}; {WRITE_NOTHING}")
    assert library.compiled(folder).is_file()
    assert all("-march=haswell" in call for call in (tmp_path / "calls").read_text().splitlines())


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_half_precision_instructions_of_a_cpu_are_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: avx512f avx512_fp16")
    own = [option if option != "-march=native" else "-march=sapphirerapids" for option in _option_sets()[0]]
    answer = subprocess.run(["g++", *own, "-dM", "-E", "-x", "c++", "/dev/null"], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("this g++ does not know the CPU")
    assert "__AVX512F__" in answer.stdout and "__AVX512FP16__" not in answer.stdout


def test_a_failure_is_remembered_by_all_processes_until_the_compiler_or_the_sources_change(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    set_compiler(tmp_path, monkeypatch, f"echo once >> {calls}; echo 'error: no' >&2; exit 1")
    for _ in range(4):
        with pytest.raises(UnavailableError, match=r"^compiler failed: error: no"):
            library.compiled(folder)
    assert len(calls.read_text().splitlines()) <= 2  # the CPU's own options, and a level
    (tmp_path / "one.h").write_text("constexpr int kOne = 3;\n")
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    assert library.compiled(folder).is_file()


def test_a_failure_for_want_of_memory_is_soon_forgotten(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, "echo 'fatal error: Killed signal terminated program cc1plus' >&2; exit 1")
    with pytest.raises(UnavailableError, match="Killed"):
        library.compiled(folder)
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    with pytest.raises(UnavailableError, match="Killed"):  # the next rank, a moment later
        library.compiled(folder)
    (note,) = folder.glob("*.failed")
    os.utime(note, (0, 0))
    assert library.compiled(folder).is_file()


def test_where_a_folder_cannot_be_made_another_takes_its_place(
    library: NativeLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    (tmp_path / "file").touch()
    compiled = library.compiled(tmp_path / "file" / "libraries")
    assert compiled.parent == own_folder(tmp_path) and compiled.is_file()
    (warning, _) = capfd.readouterr().err.splitlines()
    assert f"{tmp_path / 'file' / 'libraries'} cannot be written to (Not a directory)" in warning
    assert library.compiled(tmp_path / "file" / "libraries") == compiled
    assert capfd.readouterr().err == ""
    shutil.rmtree(own_folder(tmp_path).parent)
    own_folder(tmp_path).parent.touch()
    with pytest.raises(
        UnavailableError, match=r"file/libraries cannot .*; .* cannot be written to \(Not a directory\)$"
    ):
        library.compiled(tmp_path / "file" / "libraries")


def test_another_cpu_has_a_library_of_its_own(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    here = library.compiled(folder)
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: sse2")
    assert library.compiled(folder) != here


def test_a_machine_without_a_compiler_finds_what_another_one_compiled(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    compiled = library.compiled(folder)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert library.compiled(folder) == compiled
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: sse2")
    with pytest.raises(UnavailableError, match=r"^there is no no-such-compiler$"):
        library.compiled(folder)


def test_cores_with_different_instructions_give_one_name() -> None:
    lines = [f"flags\t\t: fpu {number}" for number in range(20)]
    forward, backward = "\n".join(["processor: 0", *lines]), "\n".join([*lines[::-1], *lines, "processor: 1"])
    found = {native_library._instructions(cpuinfo) for cpuinfo in (forward, backward)}
    assert found == {"\n".join(sorted(lines)).encode()}


def test_a_folder_without_locks_is_compiled_into(
    library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.ENOSYS))
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    compiled = library.compiled(folder)
    assert list(folder.glob("*.so")) == [compiled]


# --- What may be loaded ---

OTHER = 65534  # a user who is neither root nor this one


@pytest.fixture
def kept(library: NativeLibrary, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Path:
    """A library that was compiled before."""
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    compiled = library.compiled(folder)
    capfd.readouterr()
    return compiled


def test_nobody_else_can_write_to_the_folder_or_the_library(kept: Path) -> None:
    own = 0o755 if os.geteuid() == 0 else 0o700  # root makes images of containers, which others use
    assert stat.S_IMODE(kept.parent.stat().st_mode) == own and stat.S_IMODE(kept.stat().st_mode) == 0o644
    kept.parent.chmod(0o777)
    old_umask = os.umask(0)
    try:
        assert native_library._make_trusted(kept.parent) is None
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == own


def _cut(path: Path) -> None:
    os.truncate(path, 3)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _give_away(path: Path) -> None:
    os.chown(path, OTHER, OTHER)


def _open_to_all(path: Path) -> None:
    path.chmod(0o666)


def _link_elsewhere(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [_cut, _zero, _give_away, _open_to_all, _link_elsewhere, _fifo])
def test_a_library_that_is_damaged_or_another_user_s_is_compiled_again(
    damage: Callable[[Path], None], library: NativeLibrary, kept: Path, capfd: pytest.CaptureFixture
) -> None:
    if damage is _give_away and os.geteuid():
        pytest.skip("only root gives files away")
    content = kept.read_bytes()
    damage(kept)
    assert library.compiled(kept.parent) == kept
    assert kept.read_bytes() == content and kept.stat().st_uid == os.geteuid() and not kept.is_symlink()
    (warning, notice) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {kept} ") and notice == "Compiling once"
    assert library.compiled(kept.parent) == kept and capfd.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("owner, mode, above", [(OTHER, 0o755, 0), (OTHER, 0o755, 1), (0, 0o777, 1), (0, 0o775, 1)])
def test_where_another_user_could_plant_a_library_a_private_folder_takes_its_place(
    owner: int, mode: int, above: int, library: NativeLibrary, kept: Path, tmp_path: Path, capfd, monkeypatch
) -> None:
    place = [kept.parent, kept.parent.parent][above]
    os.chown(place, owner, OTHER)
    place.chmod(mode)
    kept.write_text("planted")
    compiled = library.compiled(kept.parent)
    assert compiled.parent == own_folder(tmp_path) and compiled.read_text() == "nothing\n"
    (warning, notice) = capfd.readouterr().err.splitlines()
    assert str(place) in warning and str(own_folder(tmp_path)) in warning and notice == "Compiling once"
    assert library.compiled(kept.parent) == compiled and capfd.readouterr().err == ""
    os.chown(own_folder(tmp_path).parent, OTHER, OTHER)
    with pytest.raises(UnavailableError, match=f"; {own_folder(tmp_path).parent} belongs to user {OTHER}$"):
        library.compiled(kept.parent)


def test_without_a_folder_for_temporary_files_what_is_compiled_is_used(
    library: NativeLibrary, kept: Path, tmp_path: Path
) -> None:
    def find_none() -> str:
        raise FileNotFoundError(errno.ENOENT, "no temporary folder")

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(tempfile, "gettempdir", find_none)
        assert library.compiled(kept.parent) == kept
        with pytest.raises(UnavailableError, match=f"^{tmp_path}/new cannot be written to .no temporary folder.$"):
            library.compiled(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_what_root_compiled_into_an_image_is_used_by_another_user(library: NativeLibrary, kept: Path) -> None:
    """With a library for this CPU as it is, else by a folder of their own."""
    for place in kept.parents:
        if stat.S_IMODE(place.stat().st_mode) == 0o700:  # pytest's folders
            place.chmod(0o711)
    program = f"""
import os, pathlib, tempfile
import concurrent.futures.thread  # the other user may not be allowed to read Python's library
from bert_pretrain.system import native_library
from tests.system.test_native_library import OTHER
tempfile.tempdir = {tempfile.gettempdir()!r}
library = native_library.NativeLibrary({library.name!r}, {list(map(str, library.sources))!r}, *{list(library[2:])!r})
library = library._replace(sources=list(map(pathlib.Path, library.sources)))
os.setgroups([]), os.setgid(OTHER), os.setuid(OTHER)
print(library.compiled(pathlib.Path({str(kept.parent)!r})))
native_library.cpu_instructions = lambda: b"flags: sse2"
print(library.compiled(pathlib.Path({str(kept.parent)!r})).parent)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == [str(kept), f"{tempfile.gettempdir()}/bert_pretrain-{OTHER}/libraries"], done
