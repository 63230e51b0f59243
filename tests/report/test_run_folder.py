"""Runs that are whole, in progress or damaged: what is there is read, and the rest is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_pretrain.report import run_folder
from tests.report.runs import write_run


def read(folder: Path) -> run_folder.ReportedRun:
    (run,) = run_folder.read_runs([str(folder)])
    return run


def test_a_whole_run_has_no_notes(tmp_path: Path) -> None:
    run = read(write_run(tmp_path / "a"))
    assert run.notes == [] and run.name == "a"
    assert (run.updates(), run.examples_per_update()) == (40, 32)
    assert run.curve(("eval",), "masked_lm_accuracy") == [(n, n / 100) for n in (0, 10, 20, 30, 40)]
    assert run.curve(("train",), "tokens_per_second") == [], "null is no point"


def test_a_run_in_progress_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", results=False)
    (folder / ".training.lock").write_text("{}")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')
    said = read(folder).notes
    assert said == [
        "metrics.jsonl: the last line is incomplete, as while it is written, and left out",
        "results.json is missing: the run is in progress; values come from metrics.jsonl",
    ]


def test_a_start_after_results_were_written_says_whose_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", updates=40)
    (folder / ".training.lock").write_text("{}")
    (note,) = read(folder).notes
    assert note.startswith("results.json is of an earlier start")


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", updates=9)
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    lines[2:2] = [
        b"\xff\x00",
        b"[1, 2]",
        b'{"kind": 3, "update": 1}',
        b'{"kind": "train", "update": true}x',
        b"[" * 9999,
    ]
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    (folder / "run.json").write_text('{"settings": ')
    (folder / "results.json").write_text("[]")
    run = read(folder)
    assert [update for update, _ in run.curve(("train",), "loss")] == list(range(1, 10))
    assert run.notes == [
        "run.json is damaged: no JSON: settings, versions and starts are missing below",
        "metrics.jsonl: 5 damaged line(s) left out, the first is line 3",
        "results.json is no JSON object: the run was killed, or is in progress on another host; "
        "values come from metrics.jsonl",
    ]


def test_an_update_that_is_repeated_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", updates=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "update": 2, "examples": 64, "loss": 1.5}) + "\n")
    assert read(folder).curve(("train",), "loss") == [(1, 9.6), (2, 1.5), (3, 9.7 - 0.3)]


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    for folders, message in (
        ([tmp_path], "holds no run, neither run.json nor metrics.jsonl; give the --output_dir of a run"),
        ([tmp_path / "none"], "no such folder; give the --output_dir of a run"),
        ([write_run(tmp_path / "a"), tmp_path / "b" / ".." / "a"], "is given twice; give each run once"),
    ):
        with pytest.raises(ValueError, match=message):
            run_folder.read_runs([str(folder) for folder in folders])


def test_names_are_as_short_as_they_can_differ(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name / "out") for name in ("a", "b")]
    assert [run.name for run in run_folder.read_runs([str(folder) for folder in folders])] == ["a/out", "b/out"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from("settings model data versions starts command device ranks optim mlperf updates end".split())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    description=st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES)),
    results=st.dictionaries(KEYS, VALUES),
    records=st.lists(st.fixed_dictionaries({"kind": st.just("train"), "update": VALUES, "examples": VALUES})),
)
def test_any_json_is_read_and_put_into_tables(description, results, records, tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed: bash init_tf.sh --plot")
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: bash init_tf.sh --plot")
    from bert_pretrain.report import page

    (tmp_path / "run.json").write_text(json.dumps(description))
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert page.render_page([read(tmp_path)]).endswith("</html>")
