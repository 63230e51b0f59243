"""Compiling a shared library for this machine, once, and finding it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import shutil
from pathlib import Path

import pytest

from bert_pretrain import native_library
from bert_pretrain.native_library import Library, UnavailableError
from tests.test_files import refuse_locks

WRITE_NOTHING = 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"'


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A function that adds the constant of a header."""
    (tmp_path / "one.h").write_text("constexpr int kOne = 1;\n")
    (tmp_path / "add.cc").write_text('#include "one.h"\nextern "C" int Add(int number) { return number + kOne; }\n')
    return Library("add", [tmp_path / "add.cc", tmp_path / "one.h"], ["2.0"], ["-std=c++14"], notice="Compiling once")


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
    library: Library, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    path = library.compiled(folder)
    assert ctypes.CDLL(str(path)).Add(41) == 42
    assert library.compiled(folder) == path
    assert capfd.readouterr().err == "Compiling once\n"
    (tmp_path / "one.h").write_text("constexpr int kOne = 2;\n")
    assert ctypes.CDLL(str(library.compiled(folder))).Add(40) == 42


def test_a_missing_compiler_is_named(library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnavailableError, match=r"^there is no no-such-compiler$"):
        library.compiled(folder)


def test_the_error_of_a_compiler_that_fails_is_quoted_and_no_file_is_left(
    library: Library, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, "echo 'op.h:1: note' >&2; echo 'op.h:7: error: C++17 is needed' >&2; exit 1")
    with pytest.raises(UnavailableError, match=r"^compiler failed: op\.h:7: error: C\+\+17 is needed$"):
        library.compiled(folder)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_written_to_is_named(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"^cannot compile into .*file/libraries: Not a directory$"):
        library.compiled(tmp_path / "file" / "libraries")


def test_another_cpu_has_a_library_of_its_own(library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    here = library.path(folder)
    assert library.path(folder) == here
    monkeypatch.setattr(native_library, "cpu_instructions", lambda: b"flags: sse2")
    assert library.path(folder) != here


def test_a_machine_without_a_compiler_finds_what_another_one_compiled(
    library: Library, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    library: Library, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.ENOSYS))
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    compiled = library.compiled(folder)
    assert list(folder.glob("*.so")) == [compiled]
