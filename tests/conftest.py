"""Fixtures of all tests."""

from __future__ import annotations

import pytest

from bert_pretrain.kernels.backend import Backend
from tests import backends


@pytest.fixture(scope="module", params=Backend, ids=lambda backend: backend.value)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend of kernels in turn."""
    backends.require(request.param)
    return request.param
