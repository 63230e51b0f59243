"""Compiling for the machine at hand, and doing without."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.native import build
from bert_pretrain.train import device


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment in which nothing was compiled yet."""
    monkeypatch.setattr(build.sys, "prefix", str(tmp_path))
    return tmp_path / "bert_pretrain-native"


def compiler(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = directory / "compiler"
    path.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit 0\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


def test_without_a_compiler_it_says_so(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(native.UnavailableError, match=r"^there is no no-such-compiler$"):
        build.library.__wrapped__()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path, monkeypatch, "echo 'op.h:1: note' >&2; echo 'op.h:7: error: C++17 is needed' >&2; exit 1")
    with pytest.raises(native.UnavailableError, match=r"^compiler failed: op\.h:7: error: C\+\+17 is needed$"):
        build.library.__wrapped__()
    assert [path.suffix for path in elsewhere.iterdir()] == [".lock"]


def test_what_cannot_be_loaded_is_no_library(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, monkeypatch, 'while [ "$1" != -o ]; do shift; done; echo nothing > "$2"')
    with pytest.raises(native.UnavailableError, match="cannot be loaded"):
        build.library.__wrapped__()


def test_another_cpu_has_a_library_of_its_own(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    here = build._path()
    assert build._path() == here
    monkeypatch.setattr(build, "_cpu", lambda: b"flags: sse2")
    assert build._path() != here


def test_a_run_without_them_takes_xla_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise native.UnavailableError("there is no g++")

    monkeypatch.setattr(native, "library", library)
    chosen = device.choose(DeviceConfig(), set())
    assert chosen.backend is Backend.XLA
    assert chosen.notices == ["no native kernels: there is no g++; using the slower xla kernels"]
    assert device.choose(DeviceConfig(native_kernels=False, use_xla=False), set()).notices == []
