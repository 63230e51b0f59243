"""Epochs and hours of a run: a recipe of bert_pretrain.run, the records of the data, and a measured speed."""

from __future__ import annotations

import math
import os
from typing import NamedTuple, Optional

from bert_pretrain import cli
from bert_pretrain.config import training
from bert_pretrain.config.check_data import EstimateConfig
from bert_pretrain.config.option import require
from bert_pretrain.run_files.report_file import UnreadableFileError, read_json_object
from bert_pretrain.run_files.results import RESULTS_JSON
from bert_pretrain.system.console import duration_text


class PlannedRun(NamedTuple):
    """The size of a run, and its speed if that is known."""

    recipe: str
    ranks: int
    examples_per_rank: int  # of an update
    num_updates: int
    examples_per_second: Optional[float]  # over all ranks


def read_planned_run(config: EstimateConfig) -> Optional[PlannedRun]:
    """What --recipe and its companions say; None without a recipe. ValueError for files that do not say it."""
    if not config.recipe:
        return None
    try:
        parts = dict(zip(training.PARTS, cli.read_flagfile(config.recipe, list(training.PARTS.values()))))
    except ValueError as error:
        raise ValueError(f"--recipe: {error}") from None
    run = training.Config(**parts)
    run.data.check()
    run.optim.check()
    ranks, speed = config.ranks, config.examples_per_second
    if config.results:
        measured_ranks, speed = read_speed(config.results)
        require(
            ranks in (None, measured_ranks),
            f"--results was measured on {measured_ranks} ranks, --ranks is {ranks}; "
            f"leave --ranks out, or give --examples_per_second of {ranks} ranks",
        )
        ranks = measured_ranks
    require(ranks is not None or not run.run.horovod, "--recipe has --horovod; give --ranks, the number of ranks")
    return PlannedRun(config.recipe, ranks or 1, run.examples_per_rank(), run.optim.num_train_steps, speed)


def read_speed(path: str) -> tuple[int, float]:
    """Ranks and examples a second in a results.json, or in that of a run's directory. ValueError if it has none."""
    path = os.path.join(path, RESULTS_JSON) if os.path.isdir(path) else path
    try:
        values = read_json_object(path)
        ranks, speed = values["ranks"], values["examples_per_second"]
    except (UnreadableFileError, KeyError) as error:
        if isinstance(error.__cause__, OSError):
            raise ValueError(f"--results: {path} cannot be read ({error.__cause__.strerror})") from None
        raise ValueError(f"--results: {path} is not the results.json of a run") from None
    if speed is None:
        raise ValueError(f"--results: {path} has no examples_per_second, because no update was timed")
    is_valid = type(ranks) is int and ranks >= 1 and type(speed) in (int, float) and 0 < speed < math.inf
    require(is_valid, f"--results: {path} is not the results.json of a run")
    return ranks, float(speed)


def estimate_lines(plan: PlannedRun, num_records: int) -> list[str]:
    """The estimate, for the user. num_records must be at least 1."""
    update = plan.ranks * plan.examples_per_rank
    epochs = plan.num_updates * update / num_records
    lines = [
        f"recipe {plan.recipe}: {plan.num_updates} updates of {update} examples ({plan.ranks} ranks x "
        f"{plan.examples_per_rank})",
        f"{num_records / update:.1f} updates an epoch of {num_records} records; the recipe has {epochs:.2f} epochs",
    ]
    if plan.examples_per_second:
        speed = plan.examples_per_second
        lines.append(
            f"at {speed:.4g} examples/s an epoch takes {duration_text(num_records / speed)}, the recipe "
            f"{duration_text(plan.num_updates * update / speed)}, without evaluations and checkpoints"
        )
    return lines
