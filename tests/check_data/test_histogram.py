from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.check_data import histogram


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=600).filter(any))
def test_every_record_is_in_the_range_of_its_length(counts):
    """Against a count by hand; the ranges follow each other without a gap up to the largest length."""
    lines = histogram.bars(np.array(counts), "#")
    expected, next_length = sum(counts), 0
    for line in lines:
        label, share = re.match(r" +(\d+(?:-\d+)?) +([\d.]+)% ?#*$", line).groups()
        low, _, high = label.partition("-")
        low, high = int(low), int(high or low)
        assert low == next_length + 1
        inside = sum(counts[low : high + 1]) + (counts[0] if low == 1 else 0)
        assert abs(float(share) - 100 * inside / expected) <= 0.051
        next_length = high
    assert next_length == len(counts) - 1 and len(lines) <= 16
    assert max(line.count("#") for line in lines) == 50


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_a_picture_is_drawn(tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    path = str(tmp_path / f"lengths{suffix}")
    histogram.require_drawing(path)
    histogram.draw(np.arange(129), path)
    assert (tmp_path / f"lengths{suffix}").read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf"):
        histogram.require_drawing(str(tmp_path / "lengths"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(ValueError, match="--histogram needs matplotlib, which is not installed"):
        histogram.require_drawing(str(tmp_path / "lengths.png"))


def test_a_missing_directory_is_refused_before_the_work(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="give a file in a directory that exists"):
        histogram.require_drawing(str(tmp_path / "no" / "lengths.png"))
