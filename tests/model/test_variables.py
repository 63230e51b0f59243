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


def _attention(values: dict[str, np.ndarray], config: ModelConfig, layer: int, num_tokens: int) -> np.ndarray:
    """[heads, tokens, tokens]: attention of random words that the layer would see as the first one, in NumPy."""
    words = np.random.default_rng(0).integers(config.vocab_size, size=num_tokens)
    table = {name.split("/")[-1]: value for name, value in values.items() if name.startswith("bert/embeddings/")}
    inputs = table["word_embeddings"][words] + table["position_embeddings"][:num_tokens]
    inputs = inputs + table["token_type_embeddings"][0]
    inputs = (inputs - inputs.mean(1, keepdims=True)) / inputs.std(1, keepdims=True)
    query, key = (
        (inputs @ values[f"bert/encoder/layer_{layer}/attention/self/{part}/kernel"])
        .reshape(num_tokens, config.num_attention_heads, -1)
        .swapaxes(0, 1)
        for part in ("query", "key")
    )
    scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("hidden, heads, layers", [(128, 2, 1), (256, 4, 2), (768, 12, 12)])
def test_informed_heads_attend_to_their_neighbours_and_words_have_their_frequencies(hidden, heads, layers):
    config = ModelConfig(
        vocab_size=1000, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=64
    )
    counts = np.arange(1000) * 3
    values = {name: np.zeros(shape, np.float32) for name, shape in variables.variable_shapes(config).items()}
    random = np.random.default_rng(1)
    for name in ("bert/embeddings/word_embeddings", "bert/embeddings/token_type_embeddings"):
        values[name] = np.clip(random.standard_normal(values[name].shape), -2, 2) * config.initializer_range
    informed = variables.informed_values(config, counts)
    assert {name: value.shape for name, value in informed.items()} == {name: values[name].shape for name in informed}
    assert {value.dtype for value in informed.values()} == {np.dtype(np.float32)}
    values.update(informed)
    for layer in range(min(2, layers)):
        attention = _attention(values, config, layer, num_tokens=200)
        for head, distance in enumerate([-1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -6, 6][:heads]):
            tokens = np.arange(10, 190)
            assert attention[head, tokens, tokens + distance].mean() > 0.3, (layer, head)
    powers = np.exp(values["cls/predictions/output_bias"])
    np.testing.assert_allclose(powers / powers.sum(), (counts + 1) / (counts + 1).sum(), rtol=1e-5)
