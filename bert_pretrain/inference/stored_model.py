"""A model on disk: its weights, shape and vocabulary, wherever the user or the run has them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.checkpoints import restore
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.vocab import Vocabulary, load_vocabulary
from bert_pretrain.hugging_face import tokenizer
from bert_pretrain.model import variables
from bert_pretrain.run_files import run_json


class StoredModel(NamedTuple):
    """A model whose files were found; the weights are not read yet."""

    weights: str  # a TF1 prefix, a Hugging Face folder or a safetensors file
    flag: str  # that named it
    config: ModelConfig
    vocabulary: Optional[Vocabulary]  # None where no vocab.txt was given or found
    lower_case: bool  # how the vocabulary's text is written

    def read(self) -> dict[str, np.ndarray]:
        """All variables, float32. ValueError if the checkpoint is damaged or holds another model."""
        shapes = variables.shapes(self.config)
        restore.check_shapes(self.weights, self.flag, shapes)
        reader = restore.open_whole(self.weights, self.flag, shapes)
        return {name: reader.get_tensor(name) for name in shapes}


def find(
    path: str,
    flag: str,
    bert_config_file: Optional[str] = None,
    vocab_file: Optional[str] = None,
    lower_case: Optional[bool] = None,
) -> StoredModel:
    """The model that `path`, given by `flag`, names: a TF1 prefix, a run's output_dir or a Hugging Face folder.

    What is not given comes from the run.json, config.json, bert_config.json, vocab.txt and tokenizer_config.json of its
    folder, and from the side files of the run's shards. ValueError where the model's shape is not found.
    """
    weights = restore.resolve_prefix(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    run = run_of(folder)
    config = _config(folder, run, bert_config_file, flag)
    vocabulary = _vocabulary_file(folder, run, bert_config_file) if vocab_file is None else vocab_file
    if lower_case is None:
        of_data = shard_files.lower_case_of(_training_shards(run))
        lower_case = bool(tokenizer.read_settings(folder).get("do_lower_case", of_data is not False))
    return StoredModel(weights, flag, config, load_vocabulary(vocabulary) if vocabulary else None, lower_case)


def run_of(folder: str) -> dict[str, Any]:
    """The run.json of the run whose checkpoints are in the folder, {} without one; best/ is a folder in its run's."""
    above, name = os.path.split(os.path.abspath(folder))
    return run_json.read_run_json(folder) or (run_json.read_run_json(above) if name == "best" else None) or {}


def _config(folder: str, run: dict[str, Any], given: Optional[str], flag: str) -> ModelConfig:
    if given:
        return ModelConfig.from_json(given)
    if run:
        config = ModelConfig(**run["model"])
        config.check()
        return config
    for name in ("config.json", "bert_config.json"):
        if os.path.isfile(os.path.join(folder, name)):
            return ModelConfig.from_json(os.path.join(folder, name))
    raise ValueError(
        f"--{flag}: {folder} holds no run.json, config.json or bert_config.json; give --bert_config_file, the shape of "
        f"the network"
    )


def _vocabulary_file(folder: str, run: dict[str, Any], bert_config_file: Optional[str]) -> Optional[str]:
    """The vocabulary that a run with --dynamic_masking read, that is beside the weights or bert_config.json, or with
    which the run's shards were made; None where none of these is there.
    """
    settings = run.get("settings", {})
    config_file = bert_config_file or settings.get("run", {}).get("bert_config_file")
    candidates = [
        settings.get("masking", {}).get("vocab_file"),
        os.path.join(folder, "vocab.txt"),
        os.path.join(os.path.dirname(config_file), "vocab.txt") if config_file else None,
    ]
    found = next((path for path in candidates if path and os.path.isfile(path)), None)
    return found or shard_files.vocabulary_file_of(_training_shards(run))


def _training_shards(run: dict[str, Any]) -> list[str]:
    return run.get("data", {}).get("train", {}).get("paths", [])
