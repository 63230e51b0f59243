"""The data of whole runs."""

from __future__ import annotations

import pytest

from tests.e2e import runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that name uneven shards, 1,003 examples to evaluate on, and a model with dropout."""
    return runs.make_data(tmp_path_factory.mktemp("data"))
