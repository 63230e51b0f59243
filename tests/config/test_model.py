"""bert_config.json: what is accepted, and the one line that says what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_pretrain.config import model
from bert_pretrain.config.model import ModelConfig

GOOD = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
CONFIGS = Path(__file__).parents[2] / "configs" / "model"


def write(tmp_path: Path, content: object) -> str:
    path = tmp_path / "bert_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_reads_googles_keys_and_fills_defaults(tmp_path: Path) -> None:
    config = ModelConfig.from_json(write(tmp_path, {**GOOD, "hidden_dropout_prob": 0.0}))
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.1)
    assert config.head_size == 8


def test_keys_of_the_multilingual_configs_are_ignored(tmp_path: Path) -> None:
    ModelConfig.from_json(write(tmp_path, {**GOOD, "directionality": "bidi", "pooler_type": "first_token_transform"}))


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"])
def test_the_tanh_form_of_gelu_under_all_its_names(tmp_path: Path, name: str) -> None:
    for more in ({}, {"model_type": "bert"}):
        assert ModelConfig.from_json(write(tmp_path, {**GOOD, "hidden_act": name, **more})).hidden_act == "gelu"


@pytest.mark.interop
def test_these_names_are_the_tanh_form_in_transformers() -> None:
    torch = pytest.importorskip("torch", reason="the interop extra: bash init_tf.sh --interop")
    activations = pytest.importorskip("transformers.activations", reason="the interop extra")
    x = torch.linspace(-6, 6, 1001)
    tanh = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    for name in set(model._GELUS) & set(activations.ACT2FN) - {"gelu"}:
        assert (activations.get_activation(name)(x) - tanh).abs().max() < 1e-6, name
    for name in set(model._OTHER_GELUS) & set(activations.ACT2FN):
        assert (activations.get_activation(name)(x) - tanh).abs().max() > 1e-4, name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**GOOD, "hiden_size": 3}, "unknown keys hiden_size"),
        ({k: v for k, v in GOOD.items() if k != "vocab_size"}, "missing keys vocab_size"),
        ({**GOOD, "num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({**GOOD, "num_hidden_layers": 0}, "num_hidden_layers must be a whole number of 1 to 2147483647, got 0"),
        ({**GOOD, "hidden_size": "32"}, "hidden_size must be a whole number"),
        ({**GOOD, "hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must be a number in \[0, 1\)"),
        ({**GOOD, "hidden_act": "relu"}, "hidden_act must be GELU in its tanh form .*, got 'relu'"),
        ({**GOOD, "hidden_act": "gelu_python", "model_type": "bert"}, "got 'gelu_python', which is the exact form"),
        ({**GOOD, "hidden_act": "quick_gelu"}, "got 'quick_gelu', which is x"),
        ({**GOOD, "layer_norm_eps": 1e-5}, "layer_norm_eps must be 1e-12, got 1e-05"),
        ({**GOOD, "model_type": "bert", "tie_word_embeddings": False}, "tie_word_embeddings must be True, got False"),
        ({**GOOD, "hidden_size": 2**40}, "hidden_size must be a whole number of 1 to 2147483647, got 1099511627776"),
        ({**GOOD, "initializer_range": False}, "initializer_range must be a number in"),
        ({**GOOD, "hidden_act": ["gelu\n"] * 999}, r"hidden_act must be GELU .*, got \['gelu\\n', "),
        ({**GOOD, "a\nb": 1, "c": 2}, r"unknown keys a\\nb, c$"),
        ('{"hidden_size": 3, "hidden_size": 4}', "cannot be read as JSON: the key 'hidden_size' is there twice"),
        ("[" * 100_000, "cannot be read as JSON: maximum recursion depth exceeded"),
        ("9" * 5000, "bert_config.json cannot be read as JSON|bert_config.json holds no JSON object"),
        ("{not json", "cannot be read as JSON"),
        ([1], "holds no JSON object"),
    ],
)
def test_refuses(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ModelConfig.from_json(write(tmp_path, content))
    assert "--bert_config_file" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json does not exist"):
        ModelConfig.from_json("nowhere.json")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_config_that_ships_is_valid(path: Path) -> None:
    assert ModelConfig.from_json(str(path)).vocab_size > 0
