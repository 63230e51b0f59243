"""A model's weights in a session, and its outputs for padded examples in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model import padded, variables


class Network:
    """The network with given values of its variables. Use it as a context manager."""

    def __init__(self, config: ModelConfig, values: Mapping[str, np.ndarray]) -> None:
        """values: variable -> float32."""
        graph = tf.Graph()
        with graph.as_default():
            weights = variables.create(config, seed=0)
            self._inputs = [tf.compat.v1.placeholder(tf.int32, [None, None]) for _ in range(3)]
            self._outputs = padded.run(weights, *self._inputs, config)
            self._session = tf.compat.v1.Session(graph=graph)
            for name, variable in weights.items():
                # Fed, not a constant: a graph holds at most 2 GB.
                self._session.run(variable.initializer, {variable.initializer.inputs[1]: values[name]})

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def run(self, word_ids: np.ndarray, mask: np.ndarray, type_ids: np.ndarray) -> padded.Outputs:
        """The Outputs, as arrays, for examples [E, S] int32."""
        return self._session.run(self._outputs, dict(zip(self._inputs, (word_ids, mask, type_ids))))
