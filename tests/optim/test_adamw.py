"""AdamW against NumPy and against Google's class."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.optim.adamw import AdamW, CorrectedAdamW
from bert_pretrain.optim.optimizer import is_exempt
from bert_pretrain.optim.settings import OptimConfig
from tests.optim import five_updates
from tests.references import google_modeling
from tests.references.numpy_optimizers import NumpyAdamw

CONFIGS = {
    "default": OptimConfig(optimizer_type="adam"),
    "other betas": OptimConfig(optimizer_type="adam", beta_1=0.8, beta_2=0.98),
    "no decay": OptimConfig(optimizer_type="adam", weight_decay_rate=0.0),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_five_updates_are_those_of_numpy(config, backend):
    reference = NumpyAdamw(
        five_updates.initial_weights(),
        config.beta_1,
        config.beta_2,
        epsilon=10.0**config.log_epsilon,
        weight_decay_rate=config.weight_decay_rate,
    )
    ours = five_updates.ours(functools.partial(AdamW, backend=backend), config)
    for values, expected in zip(ours, five_updates.reference_updates(reference)):
        for name in five_updates.SHAPES:
            np.testing.assert_allclose(values[name], expected.weights[name], rtol=0, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(values[f"{name}/adam_m"], expected.m[name], rtol=1e-4, atol=1e-12)
            np.testing.assert_allclose(values[f"{name}/adam_v"], expected.v[name], rtol=1e-5, atol=1e-20)
    assert len(values) == 3 * len(five_updates.SHAPES)  # each with m and v, and no other variables


def test_five_updates_are_those_of_googles_class():
    ours = five_updates.ours(AdamW, CONFIGS["default"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = {
            name: tf.compat.v1.get_variable(name, initializer=tf.constant(value))
            for name, value in five_updates.initial_weights().items()
        }
        rate = tf.compat.v1.placeholder(tf.float32, [])
        optimizer = google_modeling.google_code().optimization.AdamWeightDecayOptimizer(
            learning_rate=rate,
            weight_decay_rate=0.01,
            exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
        )
        fed = {name: tf.compat.v1.placeholder(tf.float32, shape) for name, shape in five_updates.SHAPES.items()}
        update = optimizer.apply_gradients([(fed[name], weights[name]) for name in fed])
        all_variables = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        session.run(tf.compat.v1.global_variables_initializer())
        for number, learning_rate in enumerate(five_updates.LEARNING_RATES):
            values = {fed[name]: value * five_updates.GRADIENT_SCALE for name, value in
                      five_updates.gradients(number).items()}  # fmt: skip
            session.run(update, {rate: learning_rate, **values})
            theirs = session.run(all_variables)
            assert set(theirs) == set(ours[number])
            for name, value in theirs.items():
                np.testing.assert_allclose(ours[number][name], value, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.interop
@pytest.mark.parametrize("decay", [0.01, 0.0])
def test_with_correction_five_updates_are_those_of_torch(decay: float, backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="torch comes with the interop extra: bash init_tf.sh --interop")
    config = OptimConfig(optimizer_type="adamw", beta_2=0.98, weight_decay_rate=decay)
    ours = five_updates.ours(functools.partial(CorrectedAdamW, backend=backend), config)
    theirs = {name: torch.tensor(value) for name, value in five_updates.initial_weights().items()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [value for name, value in theirs.items() if is_exempt(name)], "weight_decay": 0.0},
            {"params": [value for name, value in theirs.items() if not is_exempt(name)], "weight_decay": decay},
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    for number, rate in enumerate(five_updates.LEARNING_RATES):
        for name, gradient in five_updates.gradients(number).items():
            theirs[name].grad = torch.tensor(gradient * five_updates.GRADIENT_SCALE)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[number][name], value.numpy(), rtol=0, atol=1e-6, err_msg=name)
    assert set(ours[-1]) - set(theirs) - {f"{name}/{slot}" for name in theirs for slot in ("adam_m", "adam_v")} == {
        "beta1_power",
        "beta2_power",
    }
