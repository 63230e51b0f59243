"""The soak's checks find each kind of fault, in copies of a real run."""

import json
import shutil
from pathlib import Path
from typing import Callable

import pytest
import tensorflow as tf

from benchmarks import soak_checks
from tests.e2e import runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("undisturbed")
    data = runs.make_data(tmp_path_factory.mktemp("data"))
    runs.train(**data, **runs.settings(output_dir=str(output_dir), num_train_steps=6))
    return output_dir


def flip_a_byte(run: Path) -> None:
    path = run / "model.ckpt-5.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def repeat_an_update(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))


def change_a_loss(run: Path) -> None:
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[2]["loss"] += 1e-6
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def repeat_the_events(run: Path) -> None:
    (path,) = run.glob("events.*")
    shutil.copy(path, run / f"{path.name}.2")


def leave_a_file(run: Path) -> None:
    (run / ".results.json.17.partial").touch()


def change_a_weight(run: Path) -> None:
    values = runs.tensors(run / "model.ckpt-6")
    values["global_step"] = values["global_step"] + 1
    names = sorted(values)
    tensors = [tf.convert_to_tensor(values[name]) for name in names]
    tf.raw_ops.SaveV2(
        prefix=str(run / "model.ckpt-6"), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )


def end_otherwise(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**found, "end": "interrupted"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "model.ckpt-5: "),
        (repeat_an_update, "metrics.jsonl: 1 too many [('train', 6)], 0 missing []"),
        (change_a_loss, "metrics.jsonl: other values of loss"),
        (repeat_the_events, "events: "),
        (leave_a_file, "left behind: .results.json.17.partial"),
        (change_a_weight, "1 variables differ, first global_step"),
        (end_otherwise, "results.json: end is interrupted, undisturbed completed"),
    ],
)
def test_finds(undisturbed: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    assert soak_checks.faults(run, undisturbed, 6) == []
    damage(run)
    (fault,) = soak_checks.faults(run, undisturbed, 6)
    assert fault.startswith(message)
