"""Five updates of a few variables by an optimizer and by its reference implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Callable, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from bert_pretrain.optim.optimizers import Optimizer
from bert_pretrain.optim.settings import OptimConfig


class ReferenceOptimizer(Protocol):
    """One of tests/references/numpy_optimizers.py."""

    def update(self, gradients: Mapping[str, np.ndarray], learning_rate: float) -> None: ...


Reference = TypeVar("Reference", bound=ReferenceOptimizer)

LEARNING_RATES = (0.0, 1e-2, 8e-3, 3e-3, 1e-3)  # the first update of a warm-up changes only the moments
GRADIENT_SCALE = 0.25

SHAPES = {
    "bert/embeddings/word_embeddings": (11, 4),
    "bert/encoder/layer_0/attention/self/query/kernel": (4, 4),
    "bert/encoder/layer_0/attention/self/query/bias": (4,),  # exempt
    "bert/encoder/layer_0/output/LayerNorm/gamma": (4,),  # exempt
    "bert/pooler/dense/kernel": (4, 4),  # starts at zero: no trust ratio in its first update
    "cls/predictions/output_bias": (11,),  # exempt
    "cls/seq_relationship/output_weights": (2, 4),  # its gradient is always zero: only decay changes it
}


def initial_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    weights = {name: random.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    weights["bert/pooler/dense/kernel"][:] = 0.0
    return weights


def gradients(update: int) -> dict[str, np.ndarray]:
    """Gradients of an update before GRADIENT_SCALE, of different orders of magnitude."""
    random = np.random.default_rng(100 + update)
    values = {
        name: (random.normal(0.0, 1.0, shape) * 10.0 ** (-number)).astype(np.float32)
        for number, (name, shape) in enumerate(SHAPES.items())
    }
    values["cls/seq_relationship/output_weights"][:] = 0.0
    return values


def ours(
    make_optimizer: Callable[[OptimConfig, Mapping[str, tf.Variable]], Optimizer], config: OptimConfig
) -> list[dict[str, np.ndarray]]:
    """After each of the five updates: all variables of the graph by name, the optimizer's included."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = {
            name: tf.compat.v1.get_variable(name, initializer=tf.constant(value), use_resource=True)
            for name, value in initial_weights().items()
        }
        optimizer = make_optimizer(config, weights)
        fed = {name: tf.compat.v1.placeholder(tf.float32, shape) for name, shape in SHAPES.items()}
        rate = tf.compat.v1.placeholder(tf.float32, [])
        update = optimizer.apply(fed, rate, tf.constant(GRADIENT_SCALE))
        all_variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        session.run(tf.compat.v1.global_variables_initializer())
        after = []
        for number, learning_rate in enumerate(LEARNING_RATES):
            values = gradients(number)
            session.run(update, {rate: learning_rate, **{fed[name]: values[name] for name in fed}})
            after.append(session.run(all_variables))
        return after


def reference_updates(reference: Reference) -> Iterator[Reference]:
    """Runs a reference implementation and yields it after each update."""
    for number, learning_rate in enumerate(LEARNING_RATES):
        reference.update({name: value * GRADIENT_SCALE for name, value in gradients(number).items()}, learning_rate)
        yield reference
