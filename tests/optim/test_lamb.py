"""LAMB against NumPy, and its variables against MLPerf's checkpoint."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model import variables
from bert_pretrain.optim.lamb import Lamb
from bert_pretrain.optim.settings import OptimConfig
from tests.golden import checkpoint
from tests.optim import five_updates
from tests.references.numpy_optimizers import NumpyLamb

CONFIGS = {
    "default": OptimConfig(),
    "recipe for batch 8192": OptimConfig(beta_1=0.88, beta_2=0.88, weight_decay_rate=0.0166629),
    "no decay": OptimConfig(weight_decay_rate=0.0),
    "large epsilon": OptimConfig(log_epsilon=-2),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_five_updates_are_those_of_numpy(config, backend):
    reference = NumpyLamb(
        five_updates.initial_weights(),
        config.beta_1,
        config.beta_2,
        epsilon=10.0**config.log_epsilon,
        weight_decay_rate=config.weight_decay_rate,
    )
    ours = five_updates.ours(functools.partial(Lamb, backend=backend), config)
    for values, expected in zip(ours, five_updates.reference_updates(reference)):
        for name in five_updates.SHAPES:
            np.testing.assert_allclose(values[name], expected.weights[name], rtol=0, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(values[f"{name}/LAMB"], expected.m[name], rtol=1e-4, atol=1e-12)
            np.testing.assert_allclose(values[f"{name}/LAMB_1"], expected.v[name], rtol=1e-5, atol=1e-20)
        assert values["beta1_power"] == pytest.approx(expected.beta_1_power, rel=1e-6)
        assert values["beta2_power"] == pytest.approx(expected.beta_2_power, rel=1e-6)


def test_the_first_update_is_corrected_for_bias():
    # In the first update m / (1 - beta_1) / sqrt(v / (1 - beta_2)) is the sign of the gradient, so an exempt variable
    # changes by the learning rate.
    values = five_updates.ours(Lamb, OptimConfig())
    name = "bert/encoder/layer_0/output/LayerNorm/gamma"
    np.testing.assert_array_equal(values[0][name], five_updates.initial_weights()[name])  # learning rate 0
    assert np.abs(values[1][name] - values[0][name]).max() <= 1.1 * five_updates.LEARNING_RATES[1]
    assert np.abs(values[1][name] - values[0][name]).max() >= 0.5 * five_updates.LEARNING_RATES[1]


def test_variables_with_decay_change_by_the_learning_rate_times_their_norm():
    values = five_updates.ours(Lamb, OptimConfig())
    name = "bert/encoder/layer_0/attention/self/query/kernel"
    for rate, before, after in zip(five_updates.LEARNING_RATES[1:], values, values[1:]):
        change = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert change == pytest.approx(rate, rel=1e-4)


def test_the_variables_for_bert_large_are_those_of_the_checkpoint():
    large = ModelConfig(
        vocab_size=30522, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    with tf.Graph().as_default():
        weights = {
            name: tf.compat.v1.get_variable(name, shape, use_resource=True)
            for name, shape in variables.variable_shapes(large).items()
        }
        Lamb(OptimConfig(), weights)
        created = {
            variable.op.name: (variable.dtype.name, tuple(variable.shape))
            for variable in tf.compat.v1.global_variables()
        }
        assert len(tf.compat.v1.trainable_variables()) == 398
    expected = checkpoint.entries()
    del expected["global_step"]  # not the optimizer's
    assert created == expected
