"""What optimizers have in common: their interface, their variables, and which weights decay leaves alone."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Callable, ClassVar

import tensorflow as tf

from bert_pretrain.kernels import xla
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec
from bert_pretrain.tensorflow_compat.typed import static_shape

SquareSums = Callable[["Sequence[tf.Tensor]"], tf.Tensor]  # [N] float32: the sum of squares of each of N tensors


def square_sums(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """[N] float32: the sum of squares of each of N tensors; its last bits depend on the number of threads."""
    return 2.0 * tf.stack([tf.nn.l2_loss(tensor) for tensor in tensors])


class Optimizer(abc.ABC):
    """An optimizer's variables in the default graph, and its update."""

    SLOTS: ClassVar[tuple[str, ...]]  # a variable `<weight>/<slot>` of zeros for each weight, in the published names
    CONSTANTS: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon", "decay")  # of its update of one weight

    def __init__(
        self,
        config: OptimConfig,
        weights: Mapping[str, tf.Variable],
        backend: Backend = Backend.PLAIN,
        square_sums: SquareSums = square_sums,
    ) -> None:
        """Creates the slots. square_sums: for norms, as train/gradient_sum.py computes them."""
        self._config, self._weights, self._backend, self._square_sums = config, weights, backend, square_sums
        self._run = xla.function_runner(backend.is_compiled)
        self._slots = [_create_slots(weights, slot) for slot in self.SLOTS]

    def apply(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """Updates every weight once, from gradient * gradient_scale, in which unscaling and clipping are folded.

        gradients: by variable name, float32, dense. learning_rate and gradient_scale: float32 scalars.
        """
        if not self._backend.compiles_layers:
            return self._update_all(gradients, learning_rate, gradient_scale)

        def update(learning_rate: tf.Tensor, gradient_scale: tf.Tensor, *values: tf.Tensor) -> None:
            self._update_all(dict(zip(gradients, values)), learning_rate, gradient_scale)

        # One program, so that XLA may join the updates of small weights, and each variable is written in place.
        return xla.run_update(update, learning_rate, gradient_scale, *gradients.values())

    @abc.abstractmethod
    def _update_all(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, gradient_scale: tf.Tensor
    ) -> tf.Operation:
        """See apply."""

    def _variables_of(self, name: str) -> list[tf.Variable]:
        """A weight and its slots."""
        return [self._weights[name], *(slot[name] for slot in self._slots)]

    def _constants_of(self, name: str) -> dict[str, float]:
        """The CONSTANTS in a weight's update."""
        config = self._config
        decay = 0.0 if is_exempt(name) else config.weight_decay_rate
        known = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon, "decay": decay}
        return {constant: known[constant] for constant in self.CONSTANTS}


def is_exempt(name: str) -> bool:
    """True for the layer norms and biases, which have neither weight decay nor LAMB's trust ratio.

    The patterns are those of exclude_from_weight_decay in google-research/bert optimization.py. "bias" also matches
    the output_bias of both heads.
    """
    return any(part in name for part in ("LayerNorm", "layer_norm", "bias"))


def _create_slots(weights: Mapping[str, tf.Variable], slot: str) -> dict[str, tf.Variable]:
    specs = {f"{name}/{slot}": Spec(static_shape(weight)) for name, weight in weights.items()}
    return dict(zip(weights, graph_variables.create_in_graph(specs).values()))
