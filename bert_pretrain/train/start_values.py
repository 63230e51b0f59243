"""What the variables of a graph start from: their own initial values, or the tensors of a checkpoint.

Tensors are read and assigned in groups, so that beside the variables little of the checkpoint is in memory at a time.
TensorFlow's Saver and init_from_checkpoint read all of it at once, and add several operations for each variable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from bert_pretrain.train.checkpoints import Reader

_GROUP_BYTES = 2**28


def initialize(session: tf.compat.v1.Session, stored: Mapping[str, Reader]) -> None:
    """Gives every variable of the session's graph its first value: those named in `stored` that of the reader."""
    variables = session.graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    session.run([one.initializer for one in variables if one.op.name not in stored])
    for group in _groups([one for one in variables if one.op.name in stored]):
        # The second input of an initializer is the value that it assigns.
        values = {one.initializer.inputs[1]: stored[one.op.name].get_tensor(one.op.name) for one in group}
        session.run([one.initializer for one in group], values)


def scaffold(stored: Mapping[str, Reader], global_step: tf.Variable) -> tf.compat.v1.train.Scaffold:
    """Makes Estimator's session start with `initialize`.

    Without it, Estimator would add a Saver of all variables to the graph, and questions whether each is initialized.
    """
    nothing_missing = tf.constant([], tf.string)
    return tf.compat.v1.train.Scaffold(
        init_op=tf.no_op(),
        init_fn=lambda _, session: initialize(session, stored),
        ready_op=nothing_missing,
        ready_for_local_init_op=nothing_missing,
        saver=tf.compat.v1.train.Saver([global_step]),  # never used
    )


def _groups(variables: Sequence[tf.Variable]) -> Iterator[list[tf.Variable]]:
    """The variables in order, in groups of about _GROUP_BYTES."""
    group, size = [], 0
    for variable in variables:
        group.append(variable)
        size += variable.shape.num_elements() * variable.dtype.size
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
