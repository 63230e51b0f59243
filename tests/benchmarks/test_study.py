"""The study of recipes, with a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import study
from bert_pretrain.make_data.demo import DemoSettings, make_demo

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped_and_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    data = tmp_path / "data"
    data.mkdir()
    make_demo(str(data), DemoSettings(vocab_size=400, max_seq_length=32, max_predictions_per_seq=5, dupe_factor=1))
    monkeypatch.setitem(study._MODELS, "2x256", TINY)
    question = study.Question("a rate", 64, {"as it is": {}, "LAMB": {"optimizer_type": "lamb"}})
    same = study.Question("another optimizer", 64, {"of You et al.": {"optimizer_type": "lamb"}})
    monkeypatch.setattr(study, "QUESTIONS", {"rate": question, "optimizer": same})
    paths = [f"--data={data}", f"--results={tmp_path}/docs/study.jsonl", f"--output_dir={tmp_path}/runs"]
    study.main([*paths, "--variants=LAMB"])
    (first,) = study.read_results(tmp_path / "docs" / "study.jsonl")
    assert (first["variant"], first["updates"], first["examples"]) == ("LAMB", 4, 64)
    assert first["settings"]["initialization"] == "informed" and 0 <= first["accuracy"] < 1
    study.main([*paths, "--questions=rate"])
    results = study.read_results(tmp_path / "docs" / "study.jsonl")
    assert [line["variant"] for line in results] == ["as it is", "LAMB"] and results[1] == first
    with monkeypatch.context() as without_runs:
        without_runs.setattr(study, "train", lambda *_: pytest.fail("the same work was done again"))
        study.main([*paths, "--questions=optimizer"])
    assert study.read_results(tmp_path / "docs" / "study.jsonl")[2]["accuracy"] == first["accuracy"]
    capsys.readouterr()
    study.main([*paths, "--plot"])
    row = f"| LAMB | {first['accuracy']:.4f} |"
    assert row in capsys.readouterr().out
    page = study.fill_page("before\n<!-- study: rate -->\n\nold\n\n<!-- end -->\nafter\n", results)
    assert row in page and "recipes/rate.svg" in page and "old" not in page
    assert (
        study.fill_page(page, results) == page
        and page.startswith("before\n")
        and page.endswith("<!-- end -->\nafter\n")
    )
    assert (tmp_path / "docs" / "rate.svg").stat().st_size > 1000
