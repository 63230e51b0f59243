"""How a run ended: results.json and the results row."""

from __future__ import annotations

import dataclasses
import os
import resource
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.run_files.report_file import UnreadableFileError, read_json_object

COMPLETED, TARGET_REACHED, INTERRUPTED = "completed", "target_reached", "interrupted"

RESULTS_JSON = "results.json"
# What a later start reads.
_READ_AGAIN = {
    *("device", "ranks", "updates", "masked_lm_accuracy", "target_reached", "end"),
    *("examples_per_second", "updates_per_second", "tokens_per_second"),
}
_COLUMNS = ("Model", "Device", "acc", "fps (updates/s)", "examples/s", "tokens/s", "end")


@dataclasses.dataclass
class Outcome:
    """What the hook learns during a run; the loop reads it at the end."""

    end: str = COMPLETED
    step: int = 0  # updates done
    initial: Optional[Evaluated] = None  # before the first update
    latest: Optional[Evaluated] = None
    latest_update: int = -1  # the update after which `latest` was measured
    must_evaluate_first: bool = False  # an evaluation is due before the first update of this start
    checkpoint_pauses: list[float] = dataclasses.field(default_factory=list)  # seconds without training

    def accuracy_after(self, update: int) -> Optional[float]:
        """The masked-LM accuracy that was measured after this update; None where none was."""
        return self.latest.metrics["masked_lm_accuracy"] if self.latest and self.latest_update == update else None


def results_content(
    outcome: Outcome, rates: Rates, ranks: int, device: str, num_examples: int, utilization: Optional[float]
) -> dict[str, Any]:
    """The content of results.json: numbers or null, and two words, device and end."""
    return {
        "ranks": ranks,
        "device": device,
        "updates": outcome.step,
        "examples": num_examples,
        "peak_memory_bytes": peak_memory_bytes(),
        "examples_per_second": rates.examples_per_second,
        "updates_per_second": rates.updates_per_second,
        "tokens_per_second": rates.tokens_per_second,
        "padding_share": rates.padding_share,
        "step_seconds": {"median": rates.step_seconds_median, "p95": rates.step_seconds_p95},
        "input_wait_share": rates.input_wait_share,
        "utilization": utilization,
        "checkpoint_pause_seconds": {
            "median": float(np.median(outcome.checkpoint_pauses)) if outcome.checkpoint_pauses else None,
            "max": max(outcome.checkpoint_pauses, default=None),
        },
        **evaluation_fields(outcome.latest),
        "initial_masked_lm_accuracy": outcome.initial.metrics["masked_lm_accuracy"] if outcome.initial else None,
        **end_fields(outcome),
    }


def end_fields(outcome: Outcome) -> dict[str, Any]:
    """The fields of results.json that say why the run ended."""
    return {"target_reached": outcome.end == TARGET_REACHED, "end": outcome.end}


def evaluation_fields(latest: Optional[Evaluated]) -> dict[str, Optional[float]]:
    """The fields of results.json that an evaluation fills."""
    names = (
        *("masked_lm_accuracy", "masked_lm_accuracy_rare", "masked_lm_loss"),
        *("next_sentence_accuracy", "next_sentence_loss"),
    )
    metrics: dict[str, Optional[float]] = dict(latest.metrics) if latest else {}  # an older one has no rare words
    return {**{name: metrics.get(name) for name in names}, "eval_examples": latest.num_examples if latest else None}


def read_results(output_dir: str) -> Optional[dict[str, Any]]:
    """The results.json of a finished or interrupted run; None where there is none that is whole."""
    try:
        values = read_json_object(os.path.join(output_dir, RESULTS_JSON))
    except UnreadableFileError:
        return None
    return values if set(values) >= _READ_AGAIN else None


def results_row(values: dict[str, Any]) -> str:
    """The results as a Markdown table of one row; fps is updates per second, as in DeepSparkHub's table."""
    cells = [
        "BERT Pretraining",
        f"{values['device']} x{values['ranks']}",
        _cell(values["masked_lm_accuracy"], "{:.6f}"),
        _cell(values["updates_per_second"], "{:.6f}"),
        _cell(values["examples_per_second"], "{:.2f}"),
        _cell(values["tokens_per_second"], "{:.0f}"),
        values["end"],
    ]
    return "\n".join(
        (f"| {' | '.join(_COLUMNS)} |", f"|{'|'.join('---' for _ in _COLUMNS)}|", f"| {' | '.join(cells)} |")
    )


def peak_memory_bytes() -> int:
    """The largest resident set size that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cell(value: Optional[float], text: str) -> str:
    return "-" if value is None else text.format(value)


class Evaluated(NamedTuple):
    """The result of one evaluation."""

    # Losses, accuracies, and most_frequent_token: the accuracy of always predicting the most frequent masked token.
    # masked_lm_accuracy_rare counts masked tokens that are not among the NUM_FREQUENT_TOKENS most frequent of them.
    metrics: dict[str, Optional[float]]
    num_examples: int
    seconds: float


class Rates(NamedTuple):
    """Speed over the timed updates; None where none was timed."""

    examples_per_second: Optional[float]
    updates_per_second: Optional[float]
    tokens_per_second: Optional[float]  # real tokens, without padding
    padding_share: Optional[float]  # of the computed tokens
    step_seconds_median: Optional[float]
    step_seconds_p95: Optional[float]
    input_wait_share: Optional[float]  # share of the time in which this rank waited for its next batch
