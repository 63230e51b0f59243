"""Names, shapes and initial values of the network's variables."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model import variables
from tests.golden import checkpoint
from tests.references.random_examples import TINY

LARGE = ModelConfig(
    vocab_size=30522, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)
MODELS = pathlib.Path(__file__).parents[2] / "configs" / "model"


def _initial_values(seed: int) -> dict[str, np.ndarray]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        created = variables.create_variables(TINY, seed)
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(created)


def test_bert_large_has_the_variables_of_the_checkpoint():
    assert variables.variable_shapes(LARGE) == checkpoint.weights()


def test_bert_large_has_the_number_of_parameters_of_the_checkpoint():
    assert variables.num_parameters(LARGE) == 336_226_108


def test_large_json_is_the_model_of_the_checkpoint():
    assert ModelConfig.from_json(str(MODELS / "large.json")) == LARGE


def test_base_json_has_the_number_of_parameters_of_bert_base():
    values = json.loads((MODELS / "base.json").read_text())
    assert (values["num_hidden_layers"], values["hidden_size"], values["num_attention_heads"]) == (12, 768, 12)
    assert variables.num_parameters(ModelConfig.from_json(str(MODELS / "base.json"))) == 110_106_428


def test_the_golden_index_is_complete():
    entries = checkpoint.entries()
    assert (len(checkpoint.weights()), len(entries)) == (398, 1197)
    assert entries["global_step"] == ("int64", ())
    assert {dtype for name, (dtype, _) in entries.items() if name != "global_step"} == {"float32"}


def test_create_makes_trainable_float32_variables_with_these_names_and_shapes():
    with tf.Graph().as_default():
        created = variables.create_variables(TINY, seed=0)
        trainable = {variable.op.name: variable for variable in tf.compat.v1.trainable_variables()}
    assert {name: tuple(variable.shape) for name, variable in trainable.items()} == variables.variable_shapes(TINY)
    assert {variable.dtype for variable in trainable.values()} == {tf.float32}
    assert all(created[name] is variable for name, variable in trainable.items())


def test_initial_values_have_their_distribution():
    for name, value in _initial_values(seed=0).items():
        if name.endswith("gamma"):
            assert np.all(value == 1.0), name
        elif name.endswith(("beta", "bias")):
            assert np.all(value == 0.0), name
        else:
            # A normal distribution truncated at two standard deviations has 0.88 of its standard deviation, 0.02.
            assert np.abs(value).max() <= 0.04, name
            if value.size >= 1000:
                assert value.std() == pytest.approx(0.88 * 0.02, rel=0.1), name
                assert abs(value.mean()) < 0.002, name


def test_initial_values_depend_on_the_seed_and_the_variable():
    first, again, other = _initial_values(seed=3), _initial_values(seed=3), _initial_values(seed=4)
    drawn = [name for name, value in first.items() if np.ptp(value) > 0]
    assert len(drawn) == 3 + 6 * TINY.num_hidden_layers + 3
    assert all(np.array_equal(first[name], again[name]) for name in drawn)
    assert not any(np.array_equal(first[name], other[name]) for name in drawn)
    square = [first[name].tobytes() for name in drawn if first[name].shape == (TINY.hidden_size, TINY.hidden_size)]
    assert len(set(square)) == len(square) == 4 * TINY.num_hidden_layers + 2
