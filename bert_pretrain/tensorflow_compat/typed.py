"""What the type stubs of TensorFlow leave out or have too narrow, with types. At run time it is TensorFlow's own.

The stubs lack tf.compat.v1, so sessions, their hooks and settings come from here.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Tuple, Union

import tensorflow as tf

if TYPE_CHECKING:
    from tensorflow.core.protobuf.config_pb2 import ConfigProto
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

    class Session:
        """tf.compat.v1.Session."""

        def __init__(self, graph: Optional[tf.Graph] = None, config: Optional[ConfigProto] = None) -> None:
            """graph: None for the default one."""

        @property
        def graph(self) -> tf.Graph:
            """The graph whose operations run."""
            ...

        def run(self, fetches: Any, feed_dict: Optional[Mapping[tf.Tensor, Any]] = None) -> Any:
            """Runs operations; returns tensors' values in the structure of fetches."""

        def close(self) -> None:
            """Frees what the session holds."""

        def __enter__(self) -> Session: ...

        def __exit__(self, *exception: object) -> None: ...

    class Coordinator:
        """tf.train.Coordinator: of a session's threads."""

        def request_stop(self) -> None:
            """Ends training."""

    class SessionRunContext:
        """What a hook knows of a session.run of the training session."""

        @property
        def session(self) -> Session:
            """The session itself, in which a hook may run more."""
            ...

        def request_stop(self) -> None:
            """Ends training after this session.run."""

    class SessionRunArgs(NamedTuple):
        """What a hook adds to a session.run."""

        fetches: Any

    class SessionRunValues(NamedTuple):
        """What a session.run gave a hook."""

        results: Any

    class SessionRunHook:
        """tf.compat.v1.train.SessionRunHook."""

        def begin(self) -> None:
            """Once, before the session is created."""

        def after_create_session(self, session: Session, coord: Coordinator) -> None:
            """Once the graph is final and the session has its first values."""

        def before_run(self, run_context: SessionRunContext) -> Optional[SessionRunArgs]:
            """Before each session.run."""

        def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
            """After each session.run."""

        def end(self, session: Session) -> None:
            """At the end, unless an exception ended training."""

    class Scaffold:
        """tf.compat.v1.train.Scaffold: how a training session gets its first values."""

        def __init__(
            self,
            init_op: tf.Operation,
            init_fn: Callable[[Scaffold, Session], None],
            ready_op: tf.Tensor,
            ready_for_local_init_op: tf.Tensor,
            saver: object,
        ) -> None: ...

else:
    ConfigProto, Session = tf.compat.v1.ConfigProto, tf.compat.v1.Session
    Coordinator, Scaffold = tf.train.Coordinator, tf.compat.v1.train.Scaffold
    SessionRunArgs = tf.compat.v1.train.SessionRunArgs
    SessionRunContext = tf.compat.v1.train.SessionRunContext
    SessionRunHook = tf.compat.v1.train.SessionRunHook
    SessionRunValues = tf.compat.v1.train.SessionRunValues

Shape = Tuple[int, ...]
# What a function of custom_gradient returns: a tensor, and the function that makes of the tensor's gradient those of
# all arguments.
TensorAndGradient = Tuple[tf.Tensor, Callable[[tf.Tensor], "Union[tf.Tensor, Sequence[tf.Tensor]]"]]

ANY_SHAPE = tf.TensorShape(None)  # pyright: ignore[reportArgumentType]  # of unknown rank, which the stub lacks


# Whether a program for XLA is traced whose gradient is to be another program.
_is_tracing_program = contextvars.ContextVar("is_tracing_program", default=False)
_gradient_numbers = itertools.count()


@contextlib.contextmanager
def program_with_gradient() -> Iterator[None]:
    """Inside, custom_gradient keeps no argument for the gradient that the gradient does not use."""
    token = _is_tracing_program.set(True)
    try:
        yield
    finally:
        _is_tracing_program.reset(token)


def custom_gradient(function: Callable[P, TensorAndGradient]) -> Callable[P, tf.Tensor]:
    """tf.custom_gradient: the function as one that returns the tensor alone and is differentiated by its gradient."""
    if not _is_tracing_program.get():
        return tf.custom_gradient(function)
    return functools.partial(_call_with_gradient, function)


def _call_with_gradient(function: Callable[..., TensorAndGradient], *arguments: tf.Tensor) -> tf.Tensor:
    """The function's tensor, as the result of an operation of that tensor and the arguments that has its gradient.

    The operation of tf.custom_gradient also returns the arguments, and TensorFlow makes zeros of their shapes as those
    results' gradients. Nothing reads the zeros, but for the shapes the first program would return every argument.
    """
    output, gradient = function(*arguments)
    name = f"bert_pretrain_gradient_{next(_gradient_numbers)}"

    def gradients(_: tf.Operation, grad_output: tf.Tensor) -> list[Optional[tf.Tensor]]:
        found = gradient(grad_output)
        return [None, *([found] if isinstance(found, tf.Tensor) else found)]

    tf.RegisterGradient(name)(gradients)
    inputs = [output, *arguments]
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    first = tf.function(lambda output, *_: tf.identity(output), autograph=False).get_concrete_function(*specs)
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({"PartitionedCall": name}):
        (result,) = tf.raw_ops.PartitionedCall(args=inputs, Tout=[output.dtype], f=first)
    result.set_shape(output.shape)
    return result


def random_words(shape: Sequence[Union[int, tf.Tensor]], seed: tf.Tensor) -> tf.Tensor:
    """uint32 of this shape, uniform over all of its values. seed: [2] integers."""
    return tf.random.stateless_uniform(
        shape,  # pyright: ignore[reportArgumentType]  # the stub lacks lists that hold tensors
        seed,
        None,  # pyright: ignore[reportArgumentType]  # all values, which the stub lacks
        None,
        tf.uint32,
    )


def static_size(tensor: tf.Tensor, axis: int) -> int:
    """The length of an axis that is known while the graph is built."""
    size = tensor.shape[axis]
    assert size is not None, f"axis {axis} of {tensor} is of unknown length"
    return size


def static_shape(tensor: tf.Tensor) -> Shape:
    """The shape of a tensor or variable all of whose axes are of known length."""
    return tuple(static_size(tensor, axis) for axis in range(len(tensor.shape)))
