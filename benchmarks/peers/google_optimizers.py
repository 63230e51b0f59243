"""What Google's optimization.py lacks for the comparison: LAMB, and gradient accumulation.

Both take the place of AdamWeightDecayOptimizer.apply_gradients, so that all around it (schedule, clipping, step count)
runs as published. Both are written the plain way of MLPerf's TF1 reference, operation by operation for each variable.
"""

from __future__ import annotations

from typing import Callable

import tensorflow.compat.v1 as tf

ADD_MICRO_BATCH = "add_micro_batch"  # collection with the operation that adds a micro-batch without an update


def lamb(self, grads_and_vars, global_step=None, name=None):
    """LAMB as in MLPerf's reference: bias correction, decay inside the trust ratio, none of both for exempt ones."""
    power_1 = _slot("beta1_power", [], self.beta_1)
    power_2 = _slot("beta2_power", [], self.beta_2)
    assigned = []
    for gradient, variable in grads_and_vars:
        variable_name = self._get_variable_name(variable.name)
        first = _slot(f"{variable_name}/LAMB", variable.shape)
        second = _slot(f"{variable_name}/LAMB_1", variable.shape)
        new_first = tf.multiply(self.beta_1, first) + tf.multiply(1.0 - self.beta_1, gradient)
        new_second = tf.multiply(self.beta_2, second) + tf.multiply(1.0 - self.beta_2, tf.square(gradient))
        update = (new_first / (1.0 - power_1)) / (tf.sqrt(new_second / (1.0 - power_2)) + self.epsilon)
        ratio = 1.0
        if self._do_use_weight_decay(variable_name):
            update += self.weight_decay_rate * variable
            ratio = _trust_ratio(tf.norm(variable), tf.norm(update))
        new_variable = variable - ratio * self.learning_rate * update
        assigned += [variable.assign(new_variable), first.assign(new_first), second.assign(new_second)]
    with tf.control_dependencies(assigned):
        return tf.group(power_1.assign(power_1 * self.beta_1), power_2.assign(power_2 * self.beta_2), name=name)


def accumulating(apply_gradients: Callable, num_micro_batches: int) -> Callable:
    """apply_gradients, applied to the mean of the clipped gradients of num_micro_batches micro-batches.

    The train_op adds the last micro-batch and updates; the operation in ADD_MICRO_BATCH only adds. One session.run
    for each, as in the scripts derived from Google's.
    """

    def add_and_apply(self, grads_and_vars, global_step=None, name=None):
        gradients, variables = zip(*grads_and_vars)
        sums = [_slot(f"{self._get_variable_name(v.name)}/gradient_sum", v.shape) for v in variables]
        added = tf.group(*[s.assign_add(g / num_micro_batches) for s, g in zip(sums, gradients)])
        tf.add_to_collection(ADD_MICRO_BATCH, added)
        with tf.control_dependencies([added]):
            means = [s.read_value() for s in sums]
        updated = apply_gradients(self, zip(means, variables), global_step, name)
        with tf.control_dependencies([updated]):
            return tf.group(*[s.assign(tf.zeros_like(s)) for s in sums])

    return add_and_apply


def _trust_ratio(weight_norm: tf.Tensor, update_norm: tf.Tensor) -> tf.Tensor:
    by_norms = tf.where(tf.greater(update_norm, 0.0), weight_norm / update_norm, 1.0)
    return tf.where(tf.greater(weight_norm, 0.0), by_norms, 1.0)


def _slot(name: str, shape, value: float = 0.0) -> tf.Variable:
    return tf.get_variable(name, shape, tf.float32, tf.constant_initializer(value), trainable=False)
