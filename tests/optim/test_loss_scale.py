"""The loss scale's state machine, driven with infinities that the test injects."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bert_pretrain.config.training import OptimConfig
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.train import train_step


class Machine:
    """A one-variable update whose loss the test multiplies by whatever it likes."""

    def __init__(self, initial: float, dynamic: bool) -> None:
        self.factor = tf.compat.v1.placeholder(tf.float32, [])
        self.step = tf.compat.v1.train.get_or_create_global_step()
        self.weights = {"w": tf.compat.v1.get_variable("w", [3], initializer=tf.compat.v1.ones_initializer())}
        self.scale = LossScale(initial, dynamic)
        scale = self.scale.value.read_value()
        loss = tf.reduce_sum(self.weights["w"]) * self.factor
        values = dict(zip(self.weights, tf.gradients(loss * scale, list(self.weights.values()))))
        gradient = train_step.measure_gradient(values, tf.zeros([1]), scale)
        self.square_norms = gradient.square_norms
        rule = Lamb(OptimConfig(), self.weights)
        self.update = train_step.apply_gradient(gradient, rule, tf.constant(0.1), self.scale, 1.0, self.step)
        self.session = tf.compat.v1.Session()
        self.session.run(tf.compat.v1.global_variables_initializer())

    def run(self, factor: float) -> tuple[int, float, int]:
        """Step, scale and number of skipped updates after one update."""
        self.session.run(self.update, {self.factor: factor})
        return tuple(self.session.run([self.step, self.scale.value, self.scale.skipped_updates]))


def test_infinities_halve_the_scale_move_nothing_and_are_counted() -> None:
    with tf.Graph().as_default():
        machine = Machine(2.0**15, dynamic=True)
        before = machine.session.run(machine.weights["w"])
        assert machine.run(np.inf) == (0, 2.0**14, 1)
        assert machine.run(np.nan) == (0, 2.0**13, 2)
        np.testing.assert_array_equal(machine.session.run(machine.weights["w"]), before)
        assert machine.run(1.0) == (1, 2.0**13, 2)
        assert (machine.session.run(machine.weights["w"]) < before).all()


def test_the_scale_stops_at_one() -> None:
    with tf.Graph().as_default():
        machine = Machine(2.0, dynamic=True)
        assert [machine.run(np.inf)[1] for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_thousand_good_updates_in_a_row_double_it() -> None:
    with tf.Graph().as_default():
        machine = Machine(8.0, dynamic=True)
        for _ in range(999):
            machine.session.run(machine.update, {machine.factor: 1.0})
        assert machine.run(np.inf) == (999, 4.0, 1)  # the row is broken
        for _ in range(999):
            machine.session.run(machine.update, {machine.factor: 1.0})
        assert machine.run(1.0) == (1999, 8.0, 1)


def test_float32_keeps_scale_one() -> None:
    with tf.Graph().as_default():
        machine = Machine(2.0**15, dynamic=False)
        assert machine.run(1.0) == (1, 1.0, 0)
        assert machine.run(np.inf) == (1, 1.0, 1)


def test_norms_are_those_of_the_unscaled_gradient() -> None:
    with tf.Graph().as_default():
        machine = Machine(2.0**10, dynamic=True)
        norms = machine.session.run(machine.square_norms, {machine.factor: 2.0})
        np.testing.assert_allclose(norms, [12.0])
