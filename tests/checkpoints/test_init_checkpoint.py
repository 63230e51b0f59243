"""A restore is a statement: what matched, what did not, and refusal by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from tests.checkpoints.test_restore import save

HELD = {"w/kernel": [2, 3], "w/bias": [3], "w/kernel/LAMB": [2, 3], "beta1_power": [], "other": [1]}


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return save(str(tmp_path / "model.ckpt-28252"), HELD)


def variables(**shapes: list[int]) -> dict[str, tf.Variable]:
    names = {name.replace("__", "/"): shape for name, shape in shapes.items()}
    return {name: tf.compat.v1.get_variable(name, shape, use_resource=True) for name, shape in names.items()}


def test_all_matched_and_loaded_slots_ignored(prefix: str) -> None:
    with tf.Graph().as_default():
        weights = variables(w__kernel=[2, 3], w__bias=[3])
        report, stored = restore.load_init_checkpoint(prefix, weights, {}, allow_partial=False)
        with tf.compat.v1.Session() as session:
            restore.initialize_variables(session, stored)
            loaded = session.run(weights)
    stored = tf.train.load_checkpoint(prefix)
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, stored.get_tensor(name))
    assert "2 of 2 variables matched" in report
    assert "4 of its tensors not used (1 optimizer slots, beta1_power, global_step, other)" in report


def test_slots_are_loaded_when_asked_for(prefix: str) -> None:
    with tf.Graph().as_default():
        weights, slots = variables(w__kernel=[2, 3]), variables(w__kernel__LAMB=[2, 3], beta1_power=[])
        report, stored = restore.load_init_checkpoint(prefix, weights, slots, allow_partial=False)
        with tf.compat.v1.Session() as session:
            restore.initialize_variables(session, stored)
            loaded = session.run(slots)
    np.testing.assert_array_equal(loaded["w/kernel/LAMB"], tf.train.load_checkpoint(prefix).get_tensor("w/kernel/LAMB"))
    assert "1 of 1 variables matched, 2 of 2 of the optimizer's" in report


def test_missing_and_misshaped_stop_the_run_unless_allowed(prefix: str) -> None:
    with tf.Graph().as_default():
        weights = variables(w__kernel=[2, 3], w__bias=[4], absent=[1])
        with pytest.raises(ValueError, match="1 of 3 variables matched, 1 missing") as error:
            restore.load_init_checkpoint(prefix, weights, {}, allow_partial=False)
        assert "1 of another shape (w/bias: checkpoint [3], model [4])" in str(error.value)
        assert "--allow_partial_init" in str(error.value) and "\n" not in str(error.value)
        report, _ = restore.load_init_checkpoint(prefix, weights, {}, allow_partial=True)
    assert "1 of 3 variables matched, 1 missing (absent)" in report
