"""The peak memory that the benchmark prints is that of the process, and the limit is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.make_data import peak_bytes, repeat

MB = 1 << 20


def holding(num_mb: int) -> list[str]:
    return ["timeit", "-n1", "-r1", f"b'x' * ({num_mb} << 20)"]


def test_peak_is_what_the_process_held() -> None:
    little, much = (peak_bytes(holding(num_mb), 500 * MB) for num_mb in (1, 101))
    assert much - little == pytest.approx(100 * MB, rel=0.05)


def test_a_process_beyond_the_limit_fails() -> None:
    with pytest.raises(SystemExit, match="MemoryError"):
        peak_bytes(holding(300), 200 * MB)


def test_text_is_repeated_up_to_the_size(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a b\n\nc\n")
    repeat(tmp_path / "text", tmp_path / "large", 20)
    assert (tmp_path / "large").read_text() == "a b\n\nc\n\n" * 3
