"""Google's BERT as published (PyPI bert-tensorflow 1.0.4), made to run under TensorFlow 2.

Google's files are not changed. Names that they use and that TensorFlow has removed are replaced:
- `tensorflow.contrib.layers.layer_norm`, which TensorFlow 2 does not have, by `layer_norm` below;
- `tf.layers.dense`, which Keras 3 does not have (TensorFlow 2.16 and later), by `dense` below;
- `tf.estimator`, which TensorFlow 2.16 removed, by the two names that model_fn uses.
`tensorflow.compat.v1.flags` is a mock during the import: run_pretraining.py defines flags, some with the names of ours.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
import types
import warnings
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional
from unittest import mock

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.tensorflow_compat import compat
from tests.references.random_examples import Examples


class GoogleCode(NamedTuple):
    """Google's modules."""

    modeling: types.ModuleType
    optimization: types.ModuleType
    run_pretraining: types.ModuleType


class Results(NamedTuple):
    """Outputs of Google's code for a batch, without dropout."""

    masked_lm_logits: np.ndarray  # [E * P, V], unused predictions included
    next_sentence_logits: np.ndarray  # [E, 2]
    masked_lm_loss: float
    next_sentence_loss: float
    gradients: dict[str, np.ndarray]  # of the sum of both losses, by variable name


def layer_norm(
    inputs: tf.Tensor, begin_norm_axis: int, begin_params_axis: int, scope: Optional[str] = None
) -> tf.Tensor:
    """contrib's layer_norm with the arguments that modeling.py passes: over the last axis, epsilon 1e-12."""
    assert begin_norm_axis == begin_params_axis == -1
    with tf.compat.v1.variable_scope(scope, "LayerNorm"):
        width = inputs.shape[-1:]
        beta = tf.compat.v1.get_variable("beta", width, initializer=tf.compat.v1.zeros_initializer())
        gamma = tf.compat.v1.get_variable("gamma", width, initializer=tf.compat.v1.ones_initializer())
        mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
        return tf.nn.batch_normalization(inputs, mean, variance, offset=beta, scale=gamma, variance_epsilon=1e-12)


def dense(
    inputs: tf.Tensor,
    units: int,
    activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
    kernel_initializer: Any = None,
    name: str = "dense",
) -> tf.Tensor:
    """tf.layers.dense with the arguments that Google's code passes: a product over the last axis, and a bias."""
    with tf.compat.v1.variable_scope(name):
        kernel = tf.compat.v1.get_variable("kernel", [inputs.shape[-1], units], initializer=kernel_initializer)
        bias = tf.compat.v1.get_variable("bias", [units], initializer=tf.compat.v1.zeros_initializer())
        output = tf.tensordot(inputs, kernel, 1) + bias
        return activation(output) if activation else output


class TPUEstimatorSpec(NamedTuple):
    """What Google's model_fn returns."""

    mode: str
    loss: tf.Tensor
    train_op: Optional[tf.Operation] = None
    eval_metrics: Any = None
    scaffold_fn: Any = None


class ModeKeys:
    """The modes of Google's model_fn."""

    TRAIN, EVAL = "train", "eval"


class _TensorFlow1:
    """tensorflow.compat.v1 with the names that this TensorFlow lacks."""

    def __init__(self) -> None:
        if compat.tf_estimator() is None:
            self.layers = types.SimpleNamespace(dense=dense)
            tpu = types.SimpleNamespace(TPUEstimatorSpec=TPUEstimatorSpec)
            self.estimator = types.SimpleNamespace(ModeKeys=ModeKeys, tpu=tpu)

    def __getattr__(self, name: str) -> Any:
        return getattr(tf.compat.v1, name)


@functools.lru_cache(maxsize=None)
def google_code() -> GoogleCode:
    """Imports Google's modules. ModuleNotFoundError without the test extra."""
    layers = types.ModuleType("tensorflow.contrib.layers")
    layers.layer_norm = layer_norm
    contrib = types.ModuleType("tensorflow.contrib")
    contrib.layers = layers
    modules = {contrib.__name__: contrib, layers.__name__: layers}
    with mock.patch.dict(sys.modules, modules), mock.patch.object(tf.compat.v1, "flags", mock.MagicMock()):
        code = GoogleCode(*(importlib.import_module(f"bert.{name}") for name in GoogleCode._fields))
    for module in code:
        module.tf = _TensorFlow1()
    return code


def results(config: ModelConfig, weights: Mapping[str, np.ndarray], batch: Examples) -> Results:
    """Runs Google's network and losses on weights by variable name, which must be exactly the network's."""
    code = google_code()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`tf.layers.dense` is deprecated")
        batch = Examples(*map(tf.constant, batch))
        google_config = code.modeling.BertConfig.from_dict(dataclasses.asdict(config))
        model = code.modeling.BertModel(google_config, False, batch.input_ids, batch.input_mask, batch.segment_ids)
        masked_lm_loss, _, masked_lm_log_probs = code.run_pretraining.get_masked_lm_output(
            google_config,
            model.get_sequence_output(),
            model.get_embedding_table(),
            batch.masked_lm_positions,
            batch.masked_lm_ids,
            batch.masked_lm_weights,
        )
        next_sentence_loss, _, next_sentence_log_probs = code.run_pretraining.get_next_sentence_output(
            google_config, model.get_pooled_output(), batch.next_sentence_labels
        )
        variables = {variable.op.name: variable for variable in tf.compat.v1.trainable_variables()}
        assert set(variables) == set(weights)
        gradients = tf.gradients(masked_lm_loss + next_sentence_loss, list(variables.values()))
        initial = {variable.initializer.inputs[1]: weights[name] for name, variable in variables.items()}
        session.run([variable.initializer for variable in variables.values()], initial)
        return Results(
            *session.run(
                (
                    _logits(masked_lm_log_probs),
                    _logits(next_sentence_log_probs),
                    masked_lm_loss,
                    next_sentence_loss,
                    dict(zip(variables, map(tf.convert_to_tensor, gradients))),
                )
            )
        )


def _logits(log_probs: tf.Tensor) -> tf.Tensor:
    """The input of the log_softmax, of which Google's functions return only the output."""
    assert log_probs.op.type == "LogSoftmax"
    return log_probs.op.inputs[0]
