"""Variables that are created together are those that get_variable creates."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec

tf1 = tf.compat.v1
_SPECS = {
    "a/kernel": Spec((40, 30), deviation=0.02, seed=7, trainable=True),
    "a/bias": Spec((30,), trainable=True),
    "a/gamma": Spec((30,), initial=1.0, trainable=True),
    "power": Spec(initial=0.9),
    "count": Spec(dtype=tf.int64),
}
_INITIALIZERS = {
    "a/kernel": tf1.truncated_normal_initializer(stddev=0.02, seed=7),
    "a/gamma": tf1.ones_initializer(),
    "power": tf1.constant_initializer(0.9),
}


def values(variables: dict[str, tf.Variable]) -> dict[str, np.ndarray]:
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        return session.run(variables)


def test_names_shapes_and_first_values_are_those_of_get_variable() -> None:
    with tf.Graph().as_default():
        created = graph_variables.create_in_graph(_SPECS)
        assert tf1.trainable_variables() == list(created.values())[:3]
        assert tf1.global_variables() == list(created.values())
        ours = values(created)
    with tf.Graph().as_default():
        theirs = values(
            {
                name: tf1.get_variable(
                    name, spec.shape, spec.dtype, _INITIALIZERS.get(name, tf1.zeros_initializer()), use_resource=True
                )
                for name, spec in _SPECS.items()
            }
        )
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_created_variables_are_read_assigned_and_differentiated() -> None:
    with tf.Graph().as_default():
        one, other = graph_variables.create_in_graph(
            {"one": Spec((2,), initial=2.0), "other": Spec((2,), initial=3.0)}
        ).values()
        (more,) = graph_variables.create_in_graph({"more": Spec()}).values()
        loss = tf.reduce_sum(tf.identity(one) * other)
        (gradient,) = tf.gradients(loss, [other])
        assign = one.assign_add(gradient)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            session.run(assign)
            np.testing.assert_array_equal(session.run(one), [4.0, 4.0])
            assert session.run(more) == 0.0
