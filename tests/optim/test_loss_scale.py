"""The loss scale after gradients that the test makes infinite or NaN."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.loss_scale import LossScale
from bert_pretrain.optim.optimizer import square_sums
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import train_step


class Training:
    """Updates of one variable; the test chooses the factor of the loss."""

    def __init__(self, initial: float, dynamic: bool) -> None:
        self.factor = tf.compat.v1.placeholder(tf.float32, [])
        self.step = tf.compat.v1.train.get_or_create_global_step()
        self.weights = {"w": tf.compat.v1.get_variable("w", [3], initializer=tf.compat.v1.ones_initializer())}
        self.scale = LossScale(initial, dynamic)
        scale = self.scale.read()
        loss = tf.reduce_sum(self.weights["w"]) * self.factor
        values = dict(zip(self.weights, tf.gradients(loss * scale, list(self.weights.values()))))
        gradient = train_step.measure_gradient(values, tf.zeros([1]), scale, square_sums)
        self.square_norms = gradient.square_norms
        optimizer = Lamb(OptimConfig(), self.weights)
        self.update = train_step.apply_gradient(gradient, optimizer, tf.constant(0.1), self.scale, 1.0, self.step)
        self.session = tf.compat.v1.Session()
        self.session.run(tf.compat.v1.global_variables_initializer())

    def run(self, factor: float) -> tuple[int, float, int]:
        """Step, scale and number of skipped updates after one update."""
        self.session.run(self.update, {self.factor: factor})
        return tuple(self.session.run([self.step, self.scale.value, self.scale.skipped_updates]))


def test_a_gradient_that_is_not_finite_halves_the_scale_changes_no_weight_and_is_counted() -> None:
    with tf.Graph().as_default():
        training = Training(2.0**15, dynamic=True)
        before = training.session.run(training.weights["w"])
        assert training.run(np.inf) == (0, 2.0**14, 1)
        assert training.run(np.nan) == (0, 2.0**13, 2)
        np.testing.assert_array_equal(training.session.run(training.weights["w"]), before)
        assert training.run(1.0) == (1, 2.0**13, 2)
        assert (training.session.run(training.weights["w"]) < before).all()


def test_the_scale_stops_at_one() -> None:
    with tf.Graph().as_default():
        training = Training(2.0, dynamic=True)
        assert [training.run(np.inf)[1] for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_thousand_finite_updates_in_a_row_double_the_scale() -> None:
    with tf.Graph().as_default():
        training = Training(8.0, dynamic=True)
        for _ in range(999):
            training.session.run(training.update, {training.factor: 1.0})
        assert training.run(np.inf) == (999, 4.0, 1)  # starts counting anew
        for _ in range(999):
            training.session.run(training.update, {training.factor: 1.0})
        assert training.run(1.0) == (1999, 8.0, 1)


def test_the_scale_of_float32_stays_one() -> None:
    with tf.Graph().as_default():
        training = Training(2.0**15, dynamic=False)
        assert training.run(1.0) == (1, 1.0, 0)
        assert training.run(np.inf) == (1, 1.0, 1)


def test_bfloat16_does_not_take_over_the_scale_of_a_run_that_began_in_float16() -> None:
    with tf.Graph().as_default():
        training = Training(2.0**15, dynamic=False)
        training.session.run(training.scale.value.assign(2.0**15))  # as a checkpoint holds it
        assert training.session.run(training.scale.read()) == 1.0
        assert training.run(np.inf)[1] == 2.0**15


def test_norms_are_those_of_the_unscaled_gradient() -> None:
    with tf.Graph().as_default():
        training = Training(2.0**10, dynamic=True)
        norms = training.session.run(training.square_norms, {training.factor: 2.0})
        np.testing.assert_allclose(norms, [12.0])
