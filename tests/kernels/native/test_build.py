"""Compiling the native operations for this machine, and running without them."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from bert_pretrain.config.device import DeviceConfig
from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native import build
from bert_pretrain.train import device
from tests.test_files import refuse_locks


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of compiled libraries in a cache that has none."""
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def set_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Makes a shell script the compiler."""
    path = directory / "compiler"
    path.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit 0\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


def test_a_missing_compiler_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(native.UnavailableError, match=r"^there is no no-such-compiler$"):
        build.library.__wrapped__()


def test_the_error_of_a_compiler_that_fails_is_quoted_and_no_file_is_left(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, "echo 'op.h:1: note' >&2; echo 'op.h:7: error: C++17 is needed' >&2; exit 1")
    with pytest.raises(native.UnavailableError, match=r"^compiler failed: op\.h:7: error: C\+\+17 is needed$"):
        build.library.__wrapped__()
    assert [path.suffix for path in empty_cache.iterdir()] == [".lock"]


def test_a_library_that_cannot_be_loaded_is_refused(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"')
    with pytest.raises(native.UnavailableError, match="cannot be loaded"):
        build.library.__wrapped__()
    assert sorted(path.suffix for path in empty_cache.iterdir()) == [".lock", ".so"]


def test_a_cache_that_cannot_be_written_to_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(native.UnavailableError, match=r"^cannot compile into .*file/kernels: Not a directory$"):
        build.library.__wrapped__()


def test_another_cpu_has_a_library_of_its_own(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    here = build._path()
    assert build._path() == here
    monkeypatch.setattr(build, "cpu_instructions", lambda: b"flags: sse2")
    assert build._path() != here


def test_a_machine_without_a_compiler_finds_what_another_one_compiled(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compiler(tmp_path, monkeypatch, 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"')
    with pytest.raises(native.UnavailableError, match="cannot be loaded"):
        build.library.__wrapped__()
    (compiled,) = empty_cache.glob("*.so")
    assert build._path() == compiled
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build._path() == compiled
    monkeypatch.setattr(build, "cpu_instructions", lambda: b"flags: sse2")
    with pytest.raises(native.UnavailableError, match=r"^there is no no-such-compiler$"):
        build._path()


def test_cores_with_different_instructions_give_one_name() -> None:
    lines = [f"flags\t\t: fpu {number}" for number in range(20)]
    forward, backward = "\n".join(["processor: 0", *lines]), "\n".join([*lines[::-1], *lines, "processor: 1"])
    assert build._instructions(forward) == build._instructions(backward) == "\n".join(sorted(lines)).encode()


def test_a_cache_without_locks_is_compiled_into(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.ENOSYS))
    set_compiler(tmp_path, monkeypatch, 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"')
    with pytest.raises(native.UnavailableError, match="cannot be loaded"):
        build.library.__wrapped__()
    assert len(list(empty_cache.glob("*.so"))) == 1


def test_a_run_without_native_kernels_uses_xla_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise native.UnavailableError("there is no g++")

    monkeypatch.setattr(native, "library", library)
    chosen = device.choose(DeviceConfig(), set())
    assert chosen.backend is Backend.XLA
    assert chosen.notices == ["no native kernels: there is no g++; using the slower xla kernels"]
    assert device.choose(DeviceConfig(native_kernels=False, use_xla=False), set()).notices == []
