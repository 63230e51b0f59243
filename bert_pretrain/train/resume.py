"""What output_dir holds of an earlier start. Root looks; the other ranks are told."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import RunConfig
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, results, run_file


class Past(NamedTuple):
    """Where a run stands before this start; all empty in a new directory."""

    checkpoint: Optional[str]  # prefix to continue from
    step: int  # updates that it has behind it
    position: int  # updates that it has read from the data: skipped ones count
    results: Optional[dict[str, Any]]  # results.json
    notice: Optional[str]  # what has changed since the last start

    def is_finished(self, num_updates: int, stop_threshold: float) -> bool:
        """True where training is done and its results are written."""
        if self.results is None or self.results["updates"] != self.step:
            return False
        accuracy = self.results["masked_lm_accuracy"] or 0.0
        target_stands = self.results["target_reached"] and accuracy >= stop_threshold > 0
        return self.step >= num_updates or target_stands


def look(run: RunConfig, model: ModelConfig, facts: dict[str, Any]) -> Past:
    """Reads output_dir. ValueError where it cannot be written or holds something else; `facts` go into run.json."""
    _check_writable(run.output_dir)
    checkpoint = checkpoints.newest(run.output_dir)
    if checkpoint:
        checkpoints.check_model(checkpoint, "output_dir", variables.shapes(model))
    run_file.check_same_run(run.output_dir, facts)
    position = checkpoints.position_of(checkpoint)
    notice = run_file.batch_notice(run.output_dir, facts, position) if checkpoint and run.do_train else None
    return Past(checkpoint, checkpoints.step_of(checkpoint), position, results.read(run.output_dir), notice)


def _check_writable(output_dir: str) -> None:
    probe = os.path.join(output_dir, f".writable-{os.getpid()}")
    try:
        os.makedirs(output_dir, exist_ok=True)
        with open(probe, "w", encoding="utf-8"):
            pass
        os.remove(probe)
    except OSError as error:
        raise ValueError(f"--output_dir: {output_dir} cannot be written: {error.strerror}") from None
