"""The model that --from names, checked before text and shards are made for it."""

from __future__ import annotations

import os
from typing import NamedTuple

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import require
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.hugging_face import names, tokenizer
from bert_pretrain.hugging_face.safetensors_files import INDEX, WEIGHTS, open_tensors

_HEADS = (
    "cls/predictions/output_bias",
    "cls/predictions/transform/dense/kernel",
    "cls/seq_relationship/output_weights",
)


class Pretrained(NamedTuple):
    """What the data depend on."""

    vocab_file: str
    lower_case: bool


def find(folder: str, allows_partial: bool) -> Pretrained:
    """The model of a Hugging Face folder. ValueError, one line, where it cannot be continued.

    allows_partial: the user gave --allow_partial_init, so heads may be missing.
    """
    require(os.path.isdir(folder), f"--from: {folder}: no such folder; give a Hugging Face folder")
    config = ModelConfig.from_json(os.path.join(folder, "config.json"))
    path = os.path.join(folder, "vocab.txt")
    require(os.path.isfile(path), f"--from: {folder} has no vocab.txt; BERT's WordPiece vocabulary is needed")
    num_entries = len(load_vocabulary(path).entries)
    require(
        num_entries <= config.vocab_size,
        f"--from: {path} has {num_entries} entries, the model {config.vocab_size}; give the model's own",
    )
    _check_weights(folder, allows_partial)
    return Pretrained(path, bool(tokenizer.read_settings(folder).get("do_lower_case", True)))


def _check_weights(folder: str, allows_partial: bool) -> None:
    paths = [os.path.join(folder, name) for name in (WEIGHTS, INDEX)]
    path = next(filter(os.path.isfile, paths), None)
    if path is None:
        raise ValueError(f"--from: {paths[0]} is not there; save the model with safe_serialization=True")
    found = {names.variable_name(tensor.name) for tensor in open_tensors(path, "from")}
    missing = [name for name in _HEADS if name not in found]
    require(
        allows_partial or not missing,
        f"--from: {path} lacks heads of BertForPreTraining ({', '.join(missing)}); --allow_partial_init "
        f"starts them from random values",
    )
