"""Compiling a shared library for this machine, once, and finding it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from bert_pretrain.system import native_library
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError, _option_sets
from tests.system.test_locks import refuse_locks

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


def test_a_folder_that_cannot_be_written_to_is_named(
    library: NativeLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"^cannot compile into .*file/libraries: Not a directory$"):
        library.compiled(tmp_path / "file" / "libraries")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for another user's file")
def test_the_owner_of_a_file_that_is_in_the_way_is_named(library: NativeLibrary) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's are closed to other users
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "add.cc").write_text("")
        own = library._replace(sources=[folder / "add.cc"])
        lock = own.path(folder).with_suffix(".lock")
        lock.touch(0o644)
        os.seteuid(12345)
        try:
            with pytest.raises(UnavailableError) as error:
                own.compiled(folder)
        finally:
            os.seteuid(0)
    assert f"{lock} belongs to root; BERT_PRETRAIN_CACHE=DIR" in str(error.value)


def test_another_cpu_has_a_library_of_its_own(
    library: NativeLibrary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "true")
    here = library.path(folder)
    assert library.path(folder) == here
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: sse2")
    assert library.path(folder) != here


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
