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
    monkeypatch.setattr(study, "QUESTIONS", {"rate": question})
    paths = [f"--data={data}", f"--results={tmp_path}/docs/study.jsonl", f"--output_dir={tmp_path}/runs"]
    study.main([*paths, "--variants=LAMB"])
    (first,) = study.read_results(tmp_path / "docs" / "study.jsonl")
    assert (first["variant"], first["updates"], first["examples"]) == ("LAMB", 4, 64)
    assert first["settings"]["initialization"] == "informed" and 0 <= first["accuracy"] < 1
    study.main(paths)
    results = study.read_results(tmp_path / "docs" / "study.jsonl")
    assert [line["variant"] for line in results] == ["as it is", "LAMB"] and results[1] == first
    capsys.readouterr()
    study.main([*paths, "--plot"])
    assert f"| LAMB | 1 | {first['accuracy']:.4f} |" in capsys.readouterr().out
    assert (tmp_path / "docs" / "rate.svg").stat().st_size > 1000
