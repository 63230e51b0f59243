"""The backends that tests run on."""

from __future__ import annotations

import pytest

from bert_pretrain.kernels import native
from bert_pretrain.kernels.backend import Backend


def best() -> Backend:
    """The backend that a run uses on this machine."""
    try:
        native.library()
    except native.UnavailableError:
        return Backend.XLA
    return Backend.NATIVE


def require(backend: Backend) -> None:
    """Skips the test if this machine cannot have the backend."""
    if backend is Backend.NATIVE and best() is not backend:
        pytest.skip("needs a C++ compiler")
