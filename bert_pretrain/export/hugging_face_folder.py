"""Writes a Hugging Face folder: what from_pretrained of transformers 4 and 5 reads, without PyTorch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save_file

from bert_pretrain.config.model import LAYER_NORM_EPSILON, ModelConfig, hugging_face_config_of
from bert_pretrain.data.vocab import Vocabulary, write_vocabulary
from bert_pretrain.hugging_face import names, tokenizer
from bert_pretrain.hugging_face.safetensors_files import WEIGHTS
from bert_pretrain.system import files

_FORMAT = {"format": "pt"}  # transformers refuses files that do not say so


def check_vocabulary(vocabulary: Vocabulary, config: ModelConfig) -> None:
    """ValueError for a vocabulary that cannot be the model's."""
    if len(vocabulary.entries) > config.vocab_size:
        raise ValueError(
            f"--vocab_file: it has {len(vocabulary.entries)} entries, the model {config.vocab_size}; "
            f"give the model's own"
        )
    if "[PAD]" not in vocabulary.entries:
        raise ValueError("--vocab_file: it has no [PAD], which Hugging Face's tokenizer needs; give the model's own")


def write(
    folder: str,
    config: ModelConfig,
    values: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    lower_case: bool,
    readme: str,
) -> None:
    """Writes all files into an existing folder. values: variable -> float32; readme: the content of README.md."""
    pad = vocabulary.numbered()["[PAD]"]
    model = hugging_face_config_of(dataclasses.asdict(config), LAYER_NORM_EPSILON, pad)
    files.write_json(os.path.join(folder, "config.json"), model, indent=2)
    save_file(
        {names.hugging_face_name(name): names.convert(name, value) for name, value in values.items()},
        os.path.join(folder, WEIGHTS),
        metadata=_FORMAT,
    )
    write_vocabulary(os.path.join(folder, "vocab.txt"), vocabulary)
    tokenizer.make_tokenizer(vocabulary, lower_case).save(os.path.join(folder, "tokenizer.json"))
    settings = tokenizer.settings(lower_case, config.max_position_embeddings)
    files.write_json(os.path.join(folder, "tokenizer_config.json"), settings, indent=2)
    files.write_json(os.path.join(folder, "special_tokens_map.json"), tokenizer.special_tokens(), indent=2)
    with files.atomic_write(os.path.join(folder, "README.md")) as file:
        file.write(readme)
