"""How many inputs a fuzz test makes, and what an error must be like."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_MAX_ERROR = 1000  # characters


def fuzz(share: float = 1.0) -> settings:
    """Settings of a test that takes a share of $FUZZ_EXAMPLES inputs, by default of 300; a minute for one is a hang.

    Without $FUZZ_EXAMPLES the inputs are the same in every run of the same test. With it they are new each time.
    """
    given = os.environ.get("FUZZ_EXAMPLES")
    count = max(1, round(int(given or "300") * share))
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=60_000, suppress_health_check=checks, derandomize=not given)


def assert_is_one_line(error: ValueError) -> None:
    """The message of an error for the user."""
    text = str(error)
    assert text and "\n" not in text and "\r" not in text and len(text) < _MAX_ERROR, text
