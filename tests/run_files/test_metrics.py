"""metrics.jsonl and dllogger's lines: what a continued run removes, and what it reads back."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bert_pretrain.run_files import metrics


def is_after_5(kind: str, update: int) -> bool:
    return update > 5


def test_metrics_of_later_updates_and_broken_lines_go() -> None:
    assert metrics.keeps_metrics(metrics.metrics_line("train", 5, 30, {"loss": 1.0}), is_after_5)
    assert not metrics.keeps_metrics(metrics.metrics_line("eval", 6, 36, {}), is_after_5)
    torn = b'{"kind": "tra{"kind": "train", "update": 4}\n'
    for broken in (torn, b"\n", b"[]\n", b'{"kind": "train"}\n', b"\xff\n", b"[" * 100_000 + b"\n"):
        assert not metrics.keeps_metrics(broken, is_after_5)


def test_of_a_shared_dllog_only_this_run_s_lines_go() -> None:
    begin = time.time() - 100.0
    ours = metrics.dllog_line("train", 6, {"loss": 1.0, "absent": None}, begin)
    theirs = metrics.dllog_line("train", 6, {"loss": 1.0}, begin + 1.0)
    assert not metrics.keeps_dllog(ours, is_after_5, starts=[begin - 50.0, begin])
    assert metrics.keeps_dllog(theirs, is_after_5, starts=[begin - 50.0, begin])
    assert not metrics.keeps_dllog(theirs, is_after_5, starts=None)
    assert metrics.keeps_dllog(metrics.dllog_line("eval", 5, {}, begin), is_after_5, starts=[begin])
    for other in (b'DLLL {"type": "METADATA"}\n', b'DLLL {"step": "PARAMETER", "data": {}}\n', b"text\n"):
        assert metrics.keeps_dllog(other, is_after_5, starts=None)
    assert json.loads(ours[5:])["data"] == {"loss": 1.0} and json.loads(ours[5:])["step"] == [6]


def test_evaluations_are_read_back_up_to_the_checkpoint(tmp_path: Path) -> None:
    assert metrics.read_evaluations(str(tmp_path), 9) == []
    lines = [
        metrics.metrics_line(kind, update, 0, {"masked_lm_accuracy": update / 10})
        for kind, update in (("eval", 0), ("train", 1), ("eval", 5), ("eval_alone", 5), ("eval", 9))
    ]
    (tmp_path / metrics.METRICS_JSONL).write_bytes(b"".join(lines) + b'{"kind": "eval", "upd')
    found = metrics.read_evaluations(str(tmp_path), 5)
    assert [(point["update"], point["masked_lm_accuracy"]) for point in found] == [(0, 0.0), (5, 0.5)]


def test_all_records_are_read_back_and_what_is_none_is_noted(tmp_path: Path) -> None:
    points, notes = metrics.read_metrics(str(tmp_path))
    assert points == [] and notes == ["metrics.jsonl is missing: there are no curves"]
    lines = [
        metrics.metrics_line("train", update, 0, {"loss": loss}) for update, loss in ((2, 5.0), (1, 6.0), (2, 4.0))
    ]
    content = b"".join([*lines, b'{"kind": "train", "update": -1}\n', metrics.metrics_line("eval", 2, 0, {}), b"{"])
    (tmp_path / metrics.METRICS_JSONL).write_bytes(content)
    points, notes = metrics.read_metrics(str(tmp_path))
    assert [(point["kind"], point["update"], point.get("loss")) for point in points] == [
        ("train", 1, 6.0),
        ("train", 2, 4.0),
        ("eval", 2, None),
    ]
    assert [note.partition(":")[2] for note in notes] == [
        " the last line is incomplete, as while it is written, and left out",
        " 1 damaged line(s) left out, the first is line 4",
    ]
    (tmp_path / metrics.METRICS_JSONL).write_bytes(b"")
    assert metrics.read_metrics(str(tmp_path))[1] == ["metrics.jsonl has no records yet: there are no curves"]
