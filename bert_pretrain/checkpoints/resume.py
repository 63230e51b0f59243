"""What output_dir holds of a previous start of the run. Rank 0 reads it and tells the other ranks."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any, NamedTuple, Optional

from bert_pretrain.checkpoints import checkpoint_files, restore
from bert_pretrain.checkpoints.restore import NewestCheckpoint
from bert_pretrain.checkpoints.writer import BEST
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import RunConfig
from bert_pretrain.distributed.messages import exchanged
from bert_pretrain.model import variables
from bert_pretrain.run_files import metrics, results, run_json
from bert_pretrain.run_files.results import Evaluated

exchanged(Evaluated)


@exchanged
class PreviousRun(NamedTuple):
    """Where a run stood before this start; all empty in a new directory."""

    checkpoint: Optional[str] = None  # prefix to continue from
    step: int = 0  # updates done
    updates_read: int = 0  # from the data, skipped ones included
    results: Optional[dict[str, Any]] = None  # results.json
    notices: tuple[str, ...] = ()  # what has changed since the previous start
    description: Optional[dict[str, Any]] = None  # run.json
    initial: Optional[Evaluated] = None  # the evaluation before the first update
    latest: Optional[Evaluated] = None  # the newest evaluation up to `step`
    latest_update: int = -1
    weights: Optional[str] = None  # prefix of a published checkpoint in output_dir, where there is none to continue
    kept_checkpoints: tuple[str, ...] = ()  # this run's, oldest first

    def is_finished(self, num_updates: int, stop_threshold: float) -> bool:
        """True where training is done and its results are written."""
        if self.results is None or self.results["updates"] != self.step or self.results["end"] == results.INTERRUPTED:
            return False
        accuracy = self.results["masked_lm_accuracy"] or 0.0
        is_target_met = self.results["target_reached"] and accuracy >= stop_threshold > 0
        return self.step >= num_updates or is_target_met

    @property
    def is_evaluated(self) -> bool:
        """True where the weights after update `step` were evaluated; a signal may have ended the run within that."""
        return self.latest_update == self.step

    def start_times(self) -> list[float]:
        """When the earlier starts of the run began."""
        return [start["time"] for start in (self.description or {}).get("starts", [])]


def load_previous_run(run: RunConfig, model: ModelConfig, description: dict[str, Any]) -> PreviousRun:
    """Reads output_dir; `description` is the content of this start's run.json.

    ValueError where output_dir cannot be written, or holds another run.
    """
    make_output_dir(run.output_dir)
    found, previous = _find_checkpoint(run, model), run_json.read_run_json(run.output_dir)
    if not found.is_own:
        return PreviousRun(notices=found.notices, description=previous, weights=found.prefix)
    step, updates_read = restore.step_of(found.prefix), restore.updates_read_by(found.prefix)
    notices: list[str] = []
    if previous and run.do_train:
        notices = run_json.notices_of_changes(run.output_dir, previous, description, updates_read)
    elif previous and not run.eval_checkpoint_path:
        run_json.check_same_model(run.output_dir, previous, description)
    loaded = PreviousRun(
        checkpoint=found.prefix,
        step=step,
        updates_read=updates_read,
        results=results.read_results(run.output_dir),
        notices=(*found.notices, *notices),
        description=previous,
        kept_checkpoints=found.kept,
    )
    if not _has_same_evaluation_data(previous, description):
        return loaded
    initial, latest, latest_update = _evaluations(run.output_dir, step)
    return loaded._replace(initial=initial, latest=latest, latest_update=latest_update)


def _find_checkpoint(run: RunConfig, model: ModelConfig) -> NewestCheckpoint:
    """The checkpoint in output_dir to go on from, of this model; removes what a killed save left before training."""
    if run.do_train:
        for directory in (run.output_dir, os.path.join(run.output_dir, BEST)):
            checkpoint_files.remove_leftovers(directory)
    found = restore.find_newest(run.output_dir)
    if found.prefix:
        restore.check_shapes(found.prefix, "output_dir", variables.variable_shapes(model))
    return found


def make_output_dir(output_dir: str) -> None:
    """Makes the directory. ValueError where nothing can be written in it; a disk that is only full may be freed.

    Nor may what the run writes into it at its end have a name that is taken by something of another kind.
    """
    try:
        os.makedirs(output_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.isdir(output_dir):
            raise ValueError(f"--output_dir: {output_dir} cannot be written: {error.strerror}") from None
    for name in (checkpoint_files.STATE_FILE, run_json.RUN_JSON, results.RESULTS_JSON):
        path = os.path.join(output_dir, name)
        if os.path.isdir(path):
            raise ValueError(f"--output_dir: {path} is a directory, and the run writes a file there; move it away")
    best = os.path.join(output_dir, BEST)
    if os.path.lexists(best) and not os.path.isdir(best):
        raise ValueError(f"--output_dir: {best} is no directory, and the run makes one there; move it away")


def _has_same_evaluation_data(previous: Optional[dict[str, Any]], present: dict[str, Any]) -> bool:
    """False where earlier evaluations cannot be compared with those of this start."""
    before, now = ((content or {"data": {}})["data"].get("eval") for content in (previous, present))
    return before is None or now is None or before["fingerprint"] == now["fingerprint"]


def _evaluations(output_dir: str, step: int) -> tuple[Optional[Evaluated], Optional[Evaluated], int]:
    """The first evaluation, if it came before all updates, the newest one, and its update."""
    # Earlier versions did not count rare tokens.
    names = set(results.evaluation_fields(None)) - {"eval_examples", "masked_lm_accuracy_rare"}
    points = [point for point in metrics.read_evaluations(output_dir, step) if names <= set(point)]
    if not points:
        return None, None, -1
    first, last = points[0], points[-1]
    return _evaluated(first) if first["update"] == 0 else None, _evaluated(last), last["update"]


def _evaluated(point: dict[str, Any]) -> Evaluated:
    values = dict(point)
    for name in ("kind", "update", "examples", "time"):
        del values[name]
    return Evaluated(metrics=values, num_examples=values.pop("eval_examples", 0), seconds=values.pop("seconds", 0.0))
