"""results.json: every promised key, numbers or null; the row with both rates."""

from __future__ import annotations

import json
from pathlib import Path

from bert_pretrain.run_files import results
from bert_pretrain.run_files.results import Evaluated, Outcome, Rates

KEYS = """ranks device updates examples peak_memory_bytes examples_per_second updates_per_second tokens_per_second
padding_share step_seconds input_wait_share utilization checkpoint_pause_seconds masked_lm_accuracy
masked_lm_accuracy_rare masked_lm_loss next_sentence_accuracy next_sentence_loss eval_examples
initial_masked_lm_accuracy target_reached end""".split()
METRICS = {
    "masked_lm_accuracy": 0.424126,
    "masked_lm_loss": 3.0,
    "next_sentence_accuracy": 0.9,
    "next_sentence_loss": 0.2,
}


def test_every_promised_key_and_nulls_where_nothing_is_known() -> None:
    content = results.results_content(Outcome(), Rates(*[None] * 7), 8, "cpu", 1920, None)
    assert list(content) == KEYS
    assert content["masked_lm_accuracy"] is None and content["step_seconds"] == {"median": None, "p95": None}
    assert content["checkpoint_pause_seconds"] == {"median": None, "max": None}
    assert content["end"] == "completed" and content["target_reached"] is False
    assert "| - |" in results.results_row(content)


def test_the_pauses_of_checkpoints() -> None:
    content = results.results_content(Outcome(checkpoint_pauses=[0.1, 0.4, 0.2]), Rates(*[None] * 7), 1, "cpu", 0, None)
    assert content["checkpoint_pause_seconds"] == {"median": 0.2, "max": 0.4}


def test_the_row_keeps_fps_and_examples_per_second_apart() -> None:
    outcome = Outcome(end=results.TARGET_REACHED, latest=Evaluated(METRICS, 10_000, 1.0))
    rates = Rates(51.3, 0.267241, 9000.0, 0.02, 3.7, 3.8, 0.0)
    content = results.results_content(outcome, rates, 8, "BI-V100", 384_000, 0.5)
    assert results.results_row(content).splitlines() == [
        "| Model | Device | acc | fps (updates/s) | examples/s | tokens/s | end |",
        "|---|---|---|---|---|---|---|",
        "| BERT Pretraining | BI-V100 x8 | 0.424126 | 0.267241 | 51.30 | 9000 | target_reached |",
    ]


def test_read_back_or_none(tmp_path: Path) -> None:
    assert results.read_results(str(tmp_path)) is None
    content = results.results_content(Outcome(), Rates(*[None] * 7), 8, "cpu", 1920, None)
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert results.read_results(str(tmp_path)) == content
    for damaged in ('{"end": ', "[]", '{"end": "completed"}', "[" * 100_000):
        (tmp_path / "results.json").write_text(damaged)
        assert results.read_results(str(tmp_path)) is None
