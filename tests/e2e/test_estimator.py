"""The two Estimators, TensorFlow's and tensorflow_compat/estimator.py's, train the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.tensorflow_compat import compat, estimator
from tests.e2e import runs

pytestmark = pytest.mark.skipif(compat.tf_estimator() is None, reason="this TensorFlow has no tf.estimator")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch):
    """A function that makes this project's classes take the place of TensorFlow's."""

    def force() -> None:
        for name in ("Estimator", "EstimatorSpec", "RunConfig", "ModeKeys"):
            monkeypatch.setattr(estimator, name, getattr(estimator, f"Graph{name}"))

    return force


def assert_same_bits(one: Path, other: Path) -> None:
    ours, theirs = runs.tensors(one), runs.tensors(other)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_both_train_the_same_bits_and_report_the_same(data, own, tmp_path: Path) -> None:
    settings = runs.settings(do_eval=True, samples_start_eval=0, samples_between_eval=30)
    theirs = runs.train(**data, **settings, output_dir=str(tmp_path / "tf"))
    own()
    ours = runs.train(**data, **settings, output_dir=str(tmp_path / "own"))
    assert_same_bits(tmp_path / "own" / "model.ckpt-12", tmp_path / "tf" / "model.ckpt-12")
    assert ours["masked_lm_loss"] == theirs["masked_lm_loss"] and ours["updates"] == theirs["updates"]


def test_one_continues_what_the_other_began(data, own, tmp_path: Path) -> None:
    whole, halves = str(tmp_path / "whole"), str(tmp_path / "halves")
    runs.train(**data, **runs.settings(output_dir=whole))
    checkpoint = Path(whole) / "model.ckpt-5"
    Path(halves).mkdir()
    for path in checkpoint.parent.glob("model.ckpt-5.*"):
        (Path(halves) / path.name).write_bytes(path.read_bytes())
    (Path(halves) / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"\n')
    own()
    runs.train(**data, **runs.settings(output_dir=halves))
    assert_same_bits(Path(halves) / "model.ckpt-12", Path(whole) / "model.ckpt-12")


def test_a_nan_loss_ends_training(tmp_path: Path) -> None:
    def model_fn(features: tf.Tensor, mode: str) -> estimator.GraphEstimatorSpec:
        step = tf.compat.v1.train.get_global_step()
        loss = tf.where(tf.equal(step, 2), np.nan, features)
        with tf.control_dependencies([loss]):
            return estimator.GraphEstimatorSpec(mode, loss=loss, train_op=step.assign_add(1).op)

    trainer = estimator.GraphEstimator(model_fn, str(tmp_path))
    with pytest.raises(tf.compat.v1.train.NanLossDuringTrainingError):
        trainer.train(lambda: tf.constant(1.0), max_steps=5)
