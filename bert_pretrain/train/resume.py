"""What output_dir holds of a previous start of the run. Rank 0 reads it and tells the other ranks."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import RunConfig
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, results, run_file


class PreviousRun(NamedTuple):
    """Where a run stood before this start; all empty in a new directory."""

    checkpoint: Optional[str]  # prefix to continue from
    step: int  # updates done
    position: int  # updates read from the data, skipped ones included
    is_evaluated: bool  # metrics.jsonl holds an evaluation after update `step`
    results: Optional[dict[str, Any]]  # results.json
    notice: Optional[str]  # what has changed since the previous start

    def is_finished(self, num_updates: int, stop_threshold: float) -> bool:
        """True where training is done and its results are written."""
        if self.results is None or self.results["updates"] != self.step or self.results["end"] == results.INTERRUPTED:
            return False
        accuracy = self.results["masked_lm_accuracy"] or 0.0
        is_target_met = self.results["target_reached"] and accuracy >= stop_threshold > 0
        return self.step >= num_updates or is_target_met


def load_previous_run(run: RunConfig, model: ModelConfig, description: dict[str, Any]) -> PreviousRun:
    """Reads output_dir; `description` is the content of this start's run.json.

    ValueError where output_dir cannot be written, or holds another run.
    """
    _check_writable(run.output_dir)
    checkpoint = checkpoints.newest(run.output_dir)
    if checkpoint:
        checkpoints.check_model(checkpoint, "output_dir", variables.shapes(model))
    run_file.check_same_run(run.output_dir, description)
    position = checkpoints.position_of(checkpoint)
    notice = run_file.batch_notice(run.output_dir, description, position) if checkpoint and run.do_train else None
    step = checkpoints.step_of(checkpoint)
    is_evaluated = _is_evaluated(run.output_dir, step)
    return PreviousRun(checkpoint, step, position, is_evaluated, results.read(run.output_dir), notice)


def _is_evaluated(output_dir: str, step: int) -> bool:
    """True where metrics.jsonl holds an evaluation after update `step`; a signal may have ended the run within it."""
    try:
        with open(os.path.join(output_dir, "metrics.jsonl"), encoding="utf-8", errors="replace") as file:
            return any(line.startswith(f'{{"kind": "eval", "update": {step},') for line in file)
    except FileNotFoundError:
        return False


def _check_writable(output_dir: str) -> None:
    probe = os.path.join(output_dir, f".writable-{os.getpid()}")
    try:
        os.makedirs(output_dir, exist_ok=True)
        with open(probe, "w", encoding="utf-8"):
            pass
        os.remove(probe)
    except OSError as error:
        raise ValueError(f"--output_dir: {output_dir} cannot be written: {error.strerror}") from None
