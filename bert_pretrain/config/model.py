"""The shape of the network, in Google's bert_config.json and in Hugging Face's config.json."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from bert_pretrain.config.option import require
from bert_pretrain.system.files import open_regular

LAYER_NORM_EPSILON = 1e-12  # of the published checkpoints (google-research/bert, modeling.py)
# Keys of Google's multilingual and Chinese configs; they describe a pooler that pretraining does not have.
_IGNORED_MODEL_KEYS = frozenset(
    {"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
     "pooler_size_per_head", "pooler_type"}
)  # fmt: skip
_MAX_SIZE = 2**31 - 1  # TensorFlow counts in int32 here
_MAX_SHOWN = 100  # characters of a value in an error
_QUOTES = "'\""
# The tanh form of GELU (Hendrycks & Gimpel 2016), which this program computes. transformers' "gelu" is the exact form,
# with erf; hub models that were trained by Google's program with the tanh form say "gelu", too. The two differ by at
# most 0.0005.
_TANH_GELU = "gelu_new"
_GELUS = ("gelu", _TANH_GELU, "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_tanh")
_OTHER_GELUS = {
    "gelu_python": "is the exact form, with erf",
    "gelu_erf": "is the exact form, with erf",
    "quick_gelu": "is x * sigmoid(1.702 x)",
    "gelu_10": "is cut off at 10",
}
# What this program's model cannot be: key -> the one value that it has, the default of a file without the key.
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "pruned_heads": {},
}
# Keys that Google's file never has; the first releases of transformers wrote neither model_type nor architectures.
_HUGGING_FACE_KEYS = frozenset(
    {"model_type", "architectures", "layer_norm_eps", "transformers_version", "pad_token_id", "output_attentions",
     "torchscript", "num_labels"}
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network's shape, in the keys of Google's bert_config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def check(self) -> None:
        """Raises ValueError where the shape cannot be built."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                require(
                    isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_SIZE,
                    f"bert_config: {field.name} must be a whole number of 1 to {_MAX_SIZE}, got {_shown(value)}",
                )
            if field.type == "float":
                require(
                    isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < 1.0,
                    f"bert_config: {field.name} must be a number in [0, 1), got {_shown(value)}",
                )
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"bert_config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
            f"{self.num_attention_heads}; each head gets hidden_size / num_attention_heads columns",
        )
        _check_activation(self.hidden_act)

    @classmethod
    def from_json(cls, path: str) -> ModelConfig:
        """Reads and checks Google's bert_config.json or Hugging Face's config.json.

        ValueError names the file and the key at fault.
        """
        try:
            with open_regular(path) as file:
                values = json.load(file, object_pairs_hook=_without_repeats)
        except FileNotFoundError:
            raise ValueError(f"--bert_config_file: {path} does not exist") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"--bert_config_file: {path} cannot be read as JSON: {error}") from None
        require(isinstance(values, dict), f"--bert_config_file: {path} holds no JSON object")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if is_hugging_face_config(values):
            values = _translated(path, values, list(fields))
        elif values.get("hidden_act") in _GELUS:
            values["hidden_act"] = "gelu"
        unknown = sorted(set(values) - set(fields) - _IGNORED_MODEL_KEYS)
        require(not unknown, f"--bert_config_file: {path}: unknown keys {_shown(', '.join(unknown)).strip(_QUOTES)}")
        missing = [name for name, f in fields.items() if f.default is dataclasses.MISSING and name not in values]
        require(not missing, f"--bert_config_file: {path}: missing keys {', '.join(missing)}")
        config = cls(**{name: value for name, value in values.items() if name in fields})
        try:
            config.check()
        except ValueError as error:
            raise ValueError(f"--bert_config_file: {path}: {error}") from None
        return config


def _translated(path: str, values: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    try:
        return google_config_of(values, keys, LAYER_NORM_EPSILON)
    except ValueError as error:
        raise ValueError(f"--bert_config_file: {path}: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. ValueError where a key is there twice: json takes the last one without a word."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        require(key not in values, f"the key {_shown(key)} is there twice")
        values[key] = value
    return values


def _shown(value: Any) -> str:
    """A value in an error: one line, not too long."""
    return ascii(value)[:_MAX_SHOWN]


def is_hugging_face_config(values: dict[str, Any]) -> bool:
    """True for the content of a Hugging Face config.json."""
    return not _HUGGING_FACE_KEYS.isdisjoint(values)


def google_config_of(values: dict[str, Any], keys: list[str], layer_norm_epsilon: float) -> dict[str, Any]:
    """The given keys of a config.json, in the words of Google's bert_config.json.

    ValueError where it describes a network other than BERT's.
    """
    kind = values.get("model_type", "bert")
    require(kind == "bert", f"model_type must be 'bert', got {kind!r}")
    epsilon = values.get("layer_norm_eps", layer_norm_epsilon)
    require(epsilon == layer_norm_epsilon, f"layer_norm_eps must be {layer_norm_epsilon}, got {epsilon!r}")
    for key, fixed in _FIXED.items():
        require(values.get(key, fixed) in (fixed, None), f"{key} must be {fixed!r}, got {values.get(key)!r}")
    _check_activation(values.get("hidden_act", "gelu"))
    return {**{key: values[key] for key in keys if key in values}, "hidden_act": "gelu"}


def _check_activation(activation: Any) -> None:
    """ValueError for what is not GELU in its tanh form."""
    what = _OTHER_GELUS.get(activation, "") if isinstance(activation, str) else ""
    require(
        activation in _GELUS,
        f"hidden_act must be GELU in its tanh form ({', '.join(_GELUS)}), got {_shown(activation)}"
        f"{f', which {what}: the model would compute something else' if what else ''}",
    )


def hugging_face_config_of(values: dict[str, Any], layer_norm_epsilon: float, pad_token_id: int) -> dict[str, Any]:
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
