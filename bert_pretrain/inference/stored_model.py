"""A model on disk: its weights, shape and vocabulary, wherever the user or the run has them; and its network.

The network runs in a session, on padded examples in NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.vocab import Vocabulary, load_vocabulary
from bert_pretrain.hugging_face import tokenizer
from bert_pretrain.model import padded, variables
from bert_pretrain.run_files import run_json
from bert_pretrain.tensorflow_compat.typed import Session


class StoredModel(NamedTuple):
    """A model whose files were found; the weights are not read yet."""

    weights: str  # a TF1 prefix, a Hugging Face folder or a safetensors file
    flag: str  # that named it
    config: ModelConfig
    vocabulary: Optional[Vocabulary]  # None where no vocab.txt was given or found
    lower_case: bool  # how the vocabulary's text is written
    vocab_file: Optional[str] = None  # where the vocabulary was found

    @property
    def found_vocabulary(self) -> Vocabulary:
        """The vocabulary, where the caller knows that it was found."""
        assert self.vocabulary is not None, "no vocab.txt was given or found"
        return self.vocabulary

    def check_vocabulary(self) -> None:
        """ValueError for a vocabulary, which must have been found, that is larger than the model's."""
        num_entries = len(self.found_vocabulary.entries)
        if num_entries > self.config.vocab_size:
            raise ValueError(
                f"--vocab_file: {self.vocab_file} has {num_entries} entries, the model {self.config.vocab_size}; give "
                f"the model's own"
            )

    def read_values(self) -> dict[str, np.ndarray]:
        """All variables, float32. ValueError if the checkpoint is damaged or holds another model."""
        shapes = variables.variable_shapes(self.config)
        restore.check_shapes(self.weights, self.flag, shapes)
        reader = restore.open_whole(self.weights, self.flag, shapes)
        return {name: reader.get_tensor(name) for name in shapes}


def find_stored_model(
    path: str,
    flag: str,
    bert_config_file: Optional[str] = None,
    vocab_file: Optional[str] = None,
    lower_case: Optional[bool] = None,
    run: Optional[dict[str, Any]] = None,
) -> StoredModel:
    """The model that `path`, given by `flag`, names: a TF1 prefix, a run's output_dir or a Hugging Face folder.

    run: the content that run.json will have, of a run that has not begun; its checkpoints need not be there yet.

    What is not given comes from the run.json, config.json, bert_config.json, vocab.txt and tokenizer_config.json of its
    folder, and from the side files of the run's shards. ValueError where the model's shape is not found.
    """
    weights = restore.resolve_prefix(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    run = read_run_of(folder) if run is None else run
    config = _find_config(folder, run, bert_config_file, flag)
    vocabulary = _find_vocabulary(folder, run, bert_config_file) if vocab_file is None else vocab_file
    if lower_case is None:
        of_data = shard_files.lower_case_of(_training_shards(run))
        lower_case = bool(tokenizer.read_settings(folder).get("do_lower_case", of_data is not False))
    entries = load_vocabulary(vocabulary) if vocabulary else None
    return StoredModel(weights, flag, config, entries, lower_case, vocabulary)


def read_run_of(folder: str) -> dict[str, Any]:
    """The run.json of the run whose checkpoints are in the folder, {} without one; best/ is a folder in its run's."""
    above, name = os.path.split(os.path.abspath(folder))
    return run_json.read_run_json(folder) or (run_json.read_run_json(above) if name == "best" else None) or {}


def _find_config(folder: str, run: dict[str, Any], given: Optional[str], flag: str) -> ModelConfig:
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


def _find_vocabulary(folder: str, run: dict[str, Any], bert_config_file: Optional[str]) -> Optional[str]:
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


class Network:
    """The network with given values of its variables. Use it as a context manager."""

    def __init__(self, config: ModelConfig, values: Mapping[str, np.ndarray]) -> None:
        """values: variable -> float32."""
        graph = tf.Graph()
        with graph.as_default():
            weights = variables.create_variables(config, seed=0)
            word_ids, mask, type_ids = (tf.compat.v1.placeholder(tf.int32, [None, None]) for _ in range(3))
            self._inputs = word_ids, mask, type_ids
            self._outputs = padded.encode_padded(weights, word_ids, mask, type_ids, config)
            self._session = Session(graph=graph)
            for name, variable in weights.items():
                # Fed, not a constant: a graph holds at most 2 GB.
                self._session.run(variable.initializer, {variable.initializer.inputs[1]: values[name]})

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def run(self, word_ids: np.ndarray, mask: np.ndarray, type_ids: np.ndarray) -> padded.Outputs:
        """The network's outputs for examples [E, S] int32."""
        values = self._session.run(self._outputs, dict(zip(self._inputs, (word_ids, mask, type_ids))))
        return padded.Outputs(*values)
