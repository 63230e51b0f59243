"""BERT's tensors under the names of TF1 checkpoints and of Hugging Face's BertForPreTraining, in both directions.

The same rules as load_tf_weights_in_bert of transformers 4 (models/bert/modeling_bert.py). Linear layers are
[inputs, outputs] in TensorFlow and [outputs, inputs] in PyTorch.
"""

from __future__ import annotations

import re
from typing import Optional

import numpy as np

# The heads' own names. Everything else follows rules.
_HEADS = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
}
_HEADS_BACK = {theirs: ours for ours, theirs in _HEADS.items()}
# PyTorch's names of tensors that share their values with others; files may hold both.
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_KINDS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_OLD_KINDS = {"gamma": "weight", "beta": "bias"}  # of LayerNorm in the first releases
_WITHOUT_HEADS = ("embeddings.", "encoder.", "pooler.")  # of BertModel, which has no prefix `bert.`
_EMBEDDINGS = re.compile(r"bert\.embeddings\.(word|token_type|position)_embeddings\.weight")
_LAYER_NORM = re.compile(
    r"(bert\.embeddings|bert\.encoder\.layer\.\d+\.(attention\.)?output|cls\.predictions\.transform)"
    r"\.LayerNorm\.(weight|bias)"
)
_LINEAR = re.compile(
    r"(bert\.encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|(attention\.output|intermediate|output)\.dense)"
    r"|bert\.pooler\.dense|cls\.predictions\.transform\.dense)\.(weight|bias)"
)


def hugging_face_name(name: str) -> str:
    """'bert/encoder/layer_0/output/dense/kernel' -> 'bert.encoder.layer.0.output.dense.weight'."""
    if name in _HEADS:
        return _HEADS[name]
    path, _, kind = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).rpartition("/")
    kind = _KINDS.get(kind, f"{kind}.weight")  # an embedding's variable is its whole name
    return f"{path}/{kind}".replace("/", ".")


def variable_name(name: str) -> Optional[str]:
    """The TF1 name of a Hugging Face tensor, or None for what BERT's pretraining model does not have.

    Takes names of BertModel without `bert.`, LayerNorm.gamma and LayerNorm.beta, and the tied decoder's.
    """
    path, _, kind = name.rpartition(".")
    if path.endswith("LayerNorm"):
        name = f"{path}.{_OLD_KINDS.get(kind, kind)}"
    name = f"bert.{name}" if name.startswith(_WITHOUT_HEADS) else name
    name = _TIED.get(name, name)
    if name in _HEADS_BACK:
        return _HEADS_BACK[name]
    path, _, kind = re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", name).replace(".", "/").rpartition("/")
    if _EMBEDDINGS.fullmatch(name):
        return path
    if _LAYER_NORM.fullmatch(name):
        return f"{path}/{'gamma' if kind == 'weight' else 'beta'}"
    if _LINEAR.fullmatch(name):
        return f"{path}/{'kernel' if kind == 'weight' else 'bias'}"
    return None


def is_transposed(variable: str) -> bool:
    """True for the variables (TF1 name) of which the other format holds the transposed matrix."""
    return variable.endswith("/kernel")


def convert_value(variable: str, value: np.ndarray) -> np.ndarray:
    """The variable's value in the other format, in either direction; contiguous."""
    return np.ascontiguousarray(value.T) if is_transposed(variable) else value
