"""What must hold of a run's directory after whatever has happened to it, compared with an undisturbed run's."""

from __future__ import annotations

import collections
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bert_pretrain.system.files import plain_name

# What a record says of time and of this start, whose first updates are not counted, not of the training.
_OF_TIME = {
    "time", "seconds", "examples_per_second", "updates_per_second", "tokens_per_second", "padding_share",
    "step_seconds_median", "step_seconds_p95", "input_wait_share", "peak_memory_bytes",
}  # fmt: skip


def faults(run: pathlib.Path, undisturbed: pathlib.Path, update: int) -> list[str]:
    """A line for everything that is wrong with a finished run; `update` is its last one."""
    return [
        *_different_results(run, undisturbed),
        *_different_weights(run, undisturbed, update),
        *damaged_checkpoints(run),
        *_different_metrics(run, undisturbed),
        *_different_events(run, undisturbed),
        *_leftovers(run, undisturbed),
    ]


def same_weights(one: pathlib.Path, other: pathlib.Path, update: int) -> bool:
    """Whether the checkpoints of two runs after `update` have the same names and bits."""
    return not list(_different_weights(one, other, update))


def damaged_checkpoints(run: pathlib.Path) -> Iterator[str]:
    """Checkpoints that are incomplete, or of which a tensor does not have its CRC."""
    for path in sorted(run.glob("model.ckpt-*.index")):
        try:
            _tensors(str(path.with_suffix("")))
        except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
            yield f"{path.stem}: {str(error).splitlines()[0]}"


def _tensors(prefix: str) -> dict[str, np.ndarray]:
    with plain_name(prefix) as plain:
        reader = tf.train.load_checkpoint(plain)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _different_results(run: pathlib.Path, undisturbed: pathlib.Path) -> Iterator[str]:
    found, wanted = (json.loads((path / "results.json").read_text()) for path in (run, undisturbed))
    for name in ("updates", "examples", "masked_lm_accuracy", "end"):
        if found[name] != wanted[name]:
            yield f"results.json: {name} is {found[name]}, undisturbed {wanted[name]}"


def _different_weights(run: pathlib.Path, undisturbed: pathlib.Path, update: int) -> Iterator[str]:
    found, wanted = (_tensors(str(path / f"model.ckpt-{update}")) for path in (run, undisturbed))
    if found.keys() != wanted.keys():
        yield "the last checkpoint has other variables"
        return
    names = [name for name in wanted if not np.array_equal(found[name], wanted[name])]
    if names:
        yield f"{len(names)} variables differ, first {names[0]}"


def _different_metrics(run: pathlib.Path, undisturbed: pathlib.Path) -> Iterator[str]:
    """metrics.jsonl holds each update and each evaluation once, in order, with the same values."""
    found, wanted = (list(_records(path / "metrics.jsonl")) for path in (run, undisturbed))
    places = [[(record["kind"], record["update"]) for record in records] for records in (found, wanted)]
    if places[0] != places[1]:
        yield f"metrics.jsonl: {_difference(*places)}"
        return
    names = {name for one, other in zip(found, wanted) for name in {**one, **other} if one.get(name) != other.get(name)}
    if names:
        yield f"metrics.jsonl: other values of {', '.join(sorted(names))}"


def _records(path: pathlib.Path) -> Iterator[dict]:
    for line in path.read_text().splitlines():
        yield {name: value for name, value in json.loads(line).items() if name not in _OF_TIME}


def _different_events(run: pathlib.Path, undisturbed: pathlib.Path) -> Iterator[str]:
    """TensorBoard's curves have one point for each update, with the same values."""
    found, wanted = (list(_points(path)) for path in (run, undisturbed))
    if sorted(found) != sorted(wanted):
        yield f"events: {_difference([point[:2] for point in found], [point[:2] for point in wanted])}"


def _points(run: pathlib.Path) -> Iterator[tuple[str, int, float]]:
    for path in sorted(run.glob("events.out.tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            # Settings and hyperparameters are written by each start and are no points of a curve.
            curves = [value for value in event.summary.value if value.tag.startswith(("train/", "eval/"))]
            for value in curves:
                yield value.tag, event.step, value.simple_value


def _difference(found: list, wanted: list) -> str:
    found_counts, wanted_counts = collections.Counter(found), collections.Counter(wanted)
    more, less = list(found_counts - wanted_counts), list(wanted_counts - found_counts)
    if not more and not less:
        return "another order, or other values"
    return f"{len(more)} too many {more[:2]}, {len(less)} missing {less[:2]}"


def _leftovers(run: pathlib.Path, undisturbed: pathlib.Path) -> Iterator[str]:
    """Files of kinds that an undisturbed run does not leave."""

    def kinds(folder: pathlib.Path) -> dict[str, str]:
        names = sorted(path.name for path in folder.iterdir())
        return {re.sub(r"events\.out\..*", "events", re.sub(r"\d+", "N", name)): name for name in names}

    found, wanted = kinds(run), kinds(undisturbed)
    for kind in sorted(found.keys() - wanted.keys()):
        yield f"left behind: {found[kind]}"
