"""A small model on disk, exported once."""

from __future__ import annotations

import string
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.export import ExportConfig
from bert_pretrain.export import writing
from bert_pretrain.model import variables
from tests.e2e import runs
from tests.references import random_examples
from tests.references.random_examples import TINY

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Exported(NamedTuple):
    """Google's three files, and everything that is made of them."""

    root: Path
    checkpoint: str
    weights: dict[str, np.ndarray]
    hf_dir: str
    saved_model_dir: str
    tf1_prefix: str


def write_vocabulary(path: Path) -> str:
    """As many entries as TINY has."""
    letters = [*string.ascii_lowercase, *".,?!", *(f"##{letter}" for letter in string.ascii_lowercase)]
    words = [f"{one}{other}" for one in "bcdfg" for other in "aeiouy"] + ["the", "of", "and", "cat", "dog", "is"]
    entries = (SPECIAL + letters + words)[: TINY.vocab_size]
    assert len(set(entries)) == TINY.vocab_size
    path.write_text("\n".join(entries) + "\n")
    return str(path)


def save(prefix: str, values: dict[str, np.ndarray]) -> str:
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.convert_to_tensor(value) for value in values.values()],
    )
    return prefix


@pytest.fixture(scope="session", name="exported")
def _exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Written into a folder whose name TensorFlow reads as a pattern and Rust as nothing, read through a link to it."""
    folder = tmp_path_factory.mktemp("exported")
    root, odd = folder / "link", folder / "odd [1]\udcff\\"
    odd.mkdir()
    root.symlink_to(odd)
    weights = random_examples.weights(variables.variable_shapes(TINY))
    runs.write_model(root / "bert_config.json", TINY)
    write_vocabulary(root / "vocab.txt")
    paths = [str(root / name) for name in ("hf", "saved_model", "weights.ckpt")]
    made = Exported(root, save(str(root / "bert_model.ckpt"), weights), weights, *paths)
    odd_paths = [path.replace(str(root), str(odd)) for path in paths]
    config = ExportConfig(
        f"{odd}/bert_model.ckpt", hf_dir=odd_paths[0], saved_model_dir=odd_paths[1], tf1_prefix=odd_paths[2]
    )
    assert writing.export_model(config) == 0
    return made
