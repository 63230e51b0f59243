"""Creates many variables of the default graph at once.

tf.compat.v1.get_variable takes more than a millisecond and ten operations for each, and a BERT of 24 layers has 1,201
variables with those of its optimizer. Here all operations are described as one GraphDef and imported together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Union

import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from bert_pretrain.tensorflow_compat.typed import Shape


class Spec(NamedTuple):
    """A variable to be created."""

    shape: Shape = ()
    initial: float = 0.0  # of all elements
    deviation: float = 0.0  # above 0: initial values are normal around 0, cut at two standard deviations
    seed: int = 0  # of normal values
    dtype: tf.DType = tf.float32
    trainable: bool = False


def create_in_graph(specs: Mapping[str, Spec]) -> dict[str, tf.Variable]:
    """Creates resource variables with these names in the default graph, as get_variable does."""
    description = _Description(tf.compat.v1.get_default_graph().unique_name("variables"))
    for name, spec in specs.items():
        description.add_variable(name, spec)
    with tf.compat.v1.name_scope(None), tf.control_dependencies(None):
        tf.graph_util.import_graph_def(description.graph, name="")
    return {name: _variable(name, spec.trainable) for name, spec in specs.items()}


class _Description:
    """The operations of variables as a GraphDef."""

    def __init__(self, shared: str) -> None:
        """shared: the scope of constants that several variables use."""
        self.graph = tf.compat.v1.GraphDef()
        self._shared, self._constants = shared, set()

    def add_variable(self, name: str, spec: Spec) -> None:
        """Its handle, initial value, assignment, and what a fetch of the variable reads."""
        dtype = spec.dtype.as_datatype_enum
        self._add_initial(f"{name}/Initializer", spec)
        handle = self._add(name, "VarHandleOp", dtype=dtype)
        handle.attr["shape"].shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())
        handle.attr["shared_name"].s = name.encode()
        self._add(f"{name}/Assign", "AssignVariableOp", name, f"{name}/Initializer", dtype=dtype)
        self._add(f"{name}/Read/ReadVariableOp", "ReadVariableOp", name, dtype=dtype)

    def _add_initial(self, name: str, spec: Spec) -> None:
        dtype = spec.dtype.as_datatype_enum
        shape = self._constant(f"shape_{'x'.join(map(str, spec.shape))}", spec.shape, tf.int32)
        if spec.deviation:
            seeds = zip(("seed", "seed2"), tf.compat.v1.get_seed(spec.seed))
            deviation = self._constant(f"deviation_{spec.deviation}", spec.deviation, spec.dtype)
            normal = self._add(f"{name}/Normal", "TruncatedNormal", shape, dtype=dtype, T=tf.int32.as_datatype_enum)
            for attribute, seed in seeds:
                normal.attr[attribute].i = seed
            self._add(name, "Mul", normal.name, deviation, T=dtype)
        elif spec.initial:
            number = self._constant(f"{spec.dtype.name}_{spec.initial}", spec.initial, spec.dtype)
            self._add(name, "Fill", shape, number, T=dtype)
        else:
            # Zeros by Fill would be folded to a constant, which a session keeps beside the variable.
            self._add(name, "Empty", shape, dtype=dtype).attr["init"].b = True

    def _constant(self, name: str, value: Union[float, Sequence[int]], dtype: tf.DType) -> str:
        """The name of a constant, which variables share."""
        name = f"{self._shared}/{name}"
        if name not in self._constants:
            self._constants.add(name)
            node = self._add(name, "Const", dtype=dtype.as_datatype_enum)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return name

    def _add(self, name: str, operation: str, *inputs: str, **types: int) -> tf.compat.v1.NodeDef:
        node = self.graph.node.add(name=name, op=operation, input=inputs)
        for attribute, dtype in types.items():
            node.attr[attribute].type = dtype
        return node


def _variable(name: str, trainable: bool) -> tf.Variable:
    variable = tf.compat.v1.Variable(
        variable_def=VariableDef(
            variable_name=f"{name}:0",
            initial_value_name=f"{name}/Initializer:0",
            initializer_name=f"{name}/Assign",
            snapshot_name=f"{name}/Read/ReadVariableOp:0",
            is_resource=True,
            trainable=trainable,
        ),
        use_resource=True,
    )
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES, variable)
    if trainable:
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TRAINABLE_VARIABLES, variable)
    return variable
