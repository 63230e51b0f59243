"""Hugging Face's config.json: what it says of a BERT model, and the file for a model of ours."""

from __future__ import annotations

from typing import Any

from bert_pretrain.config.option import require

# The tanh form of GELU. transformers' "gelu" is the exact form, with erf; hub models that were trained by Google's
# program with the tanh form say "gelu", too. The two differ by at most 0.0005 (Hendrycks & Gimpel 2016).
_TANH_GELU = "gelu_new"
_GELUS = (_TANH_GELU, "gelu_pytorch_tanh", "gelu")
# What this program's model cannot be: key -> the one value that it has, the default of a file without the key.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


def is_hugging_face(values: dict[str, Any]) -> bool:
    """True for the content of a Hugging Face config.json."""
    return "model_type" in values or "architectures" in values


def to_google(values: dict[str, Any], keys: list[str], layer_norm_epsilon: float) -> dict[str, Any]:
    """The given keys of a config.json, in the words of Google's bert_config.json.

    ValueError where it describes a network other than BERT's.
    """
    kind = values.get("model_type", "bert")
    require(kind == "bert", f"model_type must be 'bert', got {kind!r}")
    epsilon = values.get("layer_norm_eps", layer_norm_epsilon)
    require(epsilon == layer_norm_epsilon, f"layer_norm_eps must be {layer_norm_epsilon}, got {epsilon!r}")
    for key, fixed in _FIXED.items():
        require(values.get(key, fixed) in (fixed, None), f"{key} must be {fixed!r}, got {values.get(key)!r}")
    activation = values.get("hidden_act", "gelu")
    require(activation in _GELUS, f"hidden_act must be one of {', '.join(_GELUS)}, got {activation!r}")
    return {**{key: values[key] for key in keys if key in values}, "hidden_act": "gelu"}


def from_google(values: dict[str, Any], layer_norm_epsilon: float, pad_token_id: int) -> dict[str, Any]:
    """The content of config.json for the content of a bert_config.json."""
    return {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        **values,
        "hidden_act": _TANH_GELU,
        "layer_norm_eps": layer_norm_epsilon,
        "pad_token_id": pad_token_id,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
