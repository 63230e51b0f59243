"""Loading the native operations, and running without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.train import device
from tests.system.test_native_library import WRITE_NOTHING, set_compiler


def test_a_library_that_cannot_be_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    set_compiler(tmp_path, monkeypatch, WRITE_NOTHING)
    with pytest.raises(native.UnavailableError, match="cannot be loaded"):
        native.library.__wrapped__()
    assert sorted(path.suffix for path in (tmp_path / "cache" / "kernels").iterdir()) == [".lock", ".so"]


def test_a_run_without_native_kernels_uses_xla_and_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise native.UnavailableError("there is no g++")

    monkeypatch.setattr(native, "library", library)
    chosen = device.choose_device(DeviceConfig(), set())
    assert chosen.backend is Backend.XLA
    assert chosen.notices == ["no native kernels: there is no g++; using the slower xla kernels"]
    assert device.choose_device(DeviceConfig(native_kernels=False, use_xla=False), set()).notices == []
