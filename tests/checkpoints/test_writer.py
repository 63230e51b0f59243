"""Saving beside training: a real copy, TensorFlow's own bytes, one write at a time, the best apart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, restore
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.config.training import OptimConfig, RunConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.loss_scale import LossScale

SHAPES = {"large": (300, 200), "b/LayerNorm/beta": (7,), "scalar": ()}


class Run:
    """A session with three variables, their LAMB slots and what else a run has, and what saves them."""

    def __init__(self, output_dir: Path, backend: Backend = Backend.PLAIN, **settings: int) -> None:
        config = RunConfig(output_dir=str(output_dir), **settings)
        self.writer = CheckpointWriter(config, [])
        weights = {name: tf.compat.v1.get_variable(name, shape, use_resource=True) for name, shape in SHAPES.items()}
        LossScale(1.0, dynamic=False)
        step = tf.compat.v1.train.get_or_create_global_step()
        gradients = {name: tf.fill(shape, 0.1) for name, shape in SHAPES.items()}
        rule = Lamb(OptimConfig(), weights, backend).apply(gradients, tf.constant(0.1), tf.constant(1.0))
        self.update = tf.group(rule, step.assign_add(1))
        self.writer.build(backend)
        self.session = tf.compat.v1.Session()
        self.session.run(tf.compat.v1.global_variables_initializer())
        self.writer.start_at(0)

    def values(self) -> dict[str, np.ndarray]:
        """Copies of all variables."""
        return {one.op.name: np.array(self.session.run(one)) for one in tf.compat.v1.global_variables()}


@contextmanager
def opened(output_dir: Path, **settings: object) -> Iterator[Run]:
    with tf.Graph().as_default():
        run = Run(output_dir, **settings)
        with run.writer:
            yield run


def tensors(prefix: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def held(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.index"))


def test_what_is_saved_is_not_touched_by_the_updates_that_follow(tmp_path: Path, backend: Backend) -> None:
    with opened(tmp_path, backend=backend) as run:
        write, may_write = run.writer._bundle.write, threading.Event()
        run.writer._bundle.write = lambda *arguments: may_write.wait() and write(*arguments)
        run.session.run(run.update)
        before = run.values()
        run.writer.save(run.session, 1)
        for _ in range(3):
            run.session.run(run.update)
        assert run.writer.is_writing
        may_write.set()
        run.writer.finish()
        after = run.values()
    assert_equal(tensors(tmp_path / "model.ckpt-1"), before)
    assert not np.array_equal(before["large"], after["large"])
    assert not np.array_equal(before["large/LAMB"], after["large/LAMB"])


def test_the_files_are_those_that_tensorflows_saver_writes(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.writer.save(run.session, 7)
        run.writer.finish()
        tf.compat.v1.train.Saver().save(run.session, str(tmp_path / "theirs"), write_meta_graph=False)
    for kind in ("index", "data-00000-of-00001"):
        assert (tmp_path / f"model.ckpt-7.{kind}").read_bytes() == (tmp_path / f"theirs.{kind}").read_bytes()


def test_the_newest_are_kept_and_named(tmp_path: Path) -> None:
    with opened(tmp_path, keep_checkpoint_max=2) as run:
        for step in (2, 4, 6):
            run.writer.save(run.session, step)
        run.writer.save(run.session, 6)  # is saved already
        run.writer.save(run.session, 7, is_due=False)
        run.writer.finish()
        assert len(run.writer.pauses) == 3
    assert held(tmp_path) == ["model.ckpt-4", "model.ckpt-6"]
    found = restore.find_newest(str(tmp_path))
    assert found.kept == tuple(str(tmp_path / f"model.ckpt-{step}") for step in (4, 6)) and found.notices == ()


def test_the_best_is_kept_apart(tmp_path: Path) -> None:
    with opened(tmp_path, keep_checkpoint_max=1) as run:
        for step, accuracy in ((2, 0.1), (3, 0.3), (4, 0.2), (5, 0.25), (6, None)):
            run.writer.save(run.session, step, is_due=step % 2 == 0, accuracy=accuracy)
        run.writer.finish()
    assert held(tmp_path) == ["model.ckpt-6"] and held(tmp_path / "best") == ["model.ckpt-3"]
    assert json.loads((tmp_path / "best" / "evaluation.json").read_text()) == {"update": 3, "masked_lm_accuracy": 0.3}
    assert restore.resolve_prefix(str(tmp_path / "best")) == str(tmp_path / "best" / "model.ckpt-3")
    with opened(tmp_path) as run:  # a later start remembers
        run.writer.save(run.session, 8, accuracy=0.3)
        run.writer.save(run.session, 8, accuracy=0.4)  # evaluated after it was saved
        run.writer.finish()
    assert held(tmp_path / "best") == ["model.ckpt-8"]


def test_a_checkpoint_that_cannot_be_written_warns_and_the_third_in_a_row_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def block(step: int) -> Path:
        """Something that is in the way of a checkpoint."""
        path = Path(checkpoint_files.prefix_of(str(tmp_path), step) + ".index")
        path.mkdir()
        return path

    with opened(tmp_path, max_failed_checkpoints=2) as run:
        run.writer.save(run.session, 1)
        for step in (2, 4, 5):
            block(step)
        for step in (2, 3, 4, 5):
            run.writer.save(run.session, step)
        with pytest.raises(ValueError, match=r"model\.ckpt-5 cannot be written: Is a directory; earlier .* untouched"):
            run.writer.finish()
        warnings = capsys.readouterr().err.splitlines()
        assert all(line.endswith("(1 of --max_failed_checkpoints=2 failed)") for line in warnings)
        assert [line.partition(" cannot")[0][-12:] for line in warnings] == ["model.ckpt-2", "model.ckpt-4"]
    assert not list(tmp_path.glob(".unpublished*"))
    assert Path(restore.find_newest(str(tmp_path)).prefix).name == "model.ckpt-3"


def test_a_tensor_that_reads_back_otherwise_is_no_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        write = run.writer._bundle.write

        def damaged(prefix: str, values: dict[str, np.ndarray]) -> None:
            write(prefix, values)
            path = Path(f"{prefix}.data-00000-of-00001")
            path.write_bytes(path.read_bytes()[:-1] + b"\xaa")

        run.writer._bundle.write = damaged
        run.writer.save(run.session, 1)
        with pytest.raises(ValueError, match=r"model\.ckpt-1 cannot be written.*Checksum does not match"):
            run.writer.finish()
    assert held(tmp_path) == []
