"""Reads the model once, writes each format complete or not at all, and compares what was written."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Mapping

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, restore
from bert_pretrain.config.export import ExportConfig
from bert_pretrain.export import verification
from bert_pretrain.export.hugging_face_folder import readme_text, write_hugging_face_folder
from bert_pretrain.export.saved_model import write_saved_model
from bert_pretrain.inference.stored_model import Network, StoredModel, find_stored_model, read_run_of
from bert_pretrain.run_files.results import read_results
from bert_pretrain.system import files

Values = Mapping[str, np.ndarray]


def export_model(config: ExportConfig) -> int:
    """Writes what the flags ask for; returns the exit code. ValueError, one line, for what is wrong."""
    # TensorFlow describes the inside of a SavedModel on either of these.
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model = find_stored_model(
        config.checkpoint, "checkpoint", config.bert_config_file, config.vocab_file, config.do_lower_case
    )
    _check_outputs(config, model)
    values = model.read_values()
    if config.hf_dir:
        with _directory("hf_dir", config.hf_dir) as folder:
            page = _readme(config.hf_dir, model)
            write_hugging_face_folder(folder, model.config, values, model.found_vocabulary, model.lower_case, page)
    if config.saved_model_dir:
        with _directory("saved_model_dir", config.saved_model_dir) as folder:
            write_saved_model(folder, model.config, values)
    if config.tf1_prefix:
        _write_tf1(config.tf1_prefix, values)
    return _verify(config, model, values) if config.verify else 0


def check_export(config: ExportConfig, run: dict[str, Any]) -> None:
    """ValueError where export_model would fail after a run, whose run.json will hold `run`."""
    model = find_stored_model(
        config.checkpoint, "checkpoint", config.bert_config_file, config.vocab_file, config.do_lower_case, run
    )
    _check_outputs(config, model)


def _check_outputs(config: ExportConfig, model: StoredModel) -> None:
    """Everything that can be known before the weights are read."""
    if config.hf_dir:
        if model.vocabulary is None:
            raise ValueError(
                "--hf_dir needs --vocab_file, the model's vocabulary; none is beside the checkpoint, bert_config.json "
                "or the shards"
            )
        model.check_vocabulary()
        if "[PAD]" not in model.found_vocabulary.entries:
            raise ValueError(
                f"--vocab_file: {model.vocab_file} has no [PAD], which Hugging Face's tokenizer needs; give the "
                f"model's own"
            )
    for flag in ("hf_dir", "saved_model_dir"):
        path = getattr(config, flag)
        if path and os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
            raise ValueError(f"--{flag}: {path} exists already; name another, or remove it")
        if path:
            files.require_writable(f"--{flag}", path)
    if config.tf1_prefix and checkpoint_files.has_index(config.tf1_prefix):
        raise ValueError(f"--tf1_prefix: {config.tf1_prefix}.index exists already; name another, or remove it")
    if config.tf1_prefix:
        files.require_writable("--tf1_prefix", f"{config.tf1_prefix}.index")


@contextlib.contextmanager
def _directory(flag: str, path: str) -> Iterator[str]:
    try:
        with files.atomic_directory(path) as folder:
            yield folder
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"--{flag}: {path} cannot be written: {restore.error_reason(error)}") from None
    print(f"{path} is written", flush=True)


def _write_tf1(prefix: str, values: Values) -> None:
    """Google's names, the weights alone: no slots, no global_step."""
    try:
        with checkpoint_files.publishing(os.path.abspath(prefix)) as written:
            tf.raw_ops.SaveV2(
                prefix=written,
                tensor_names=list(values),
                shape_and_slices=[""] * len(values),
                tensors=[tf.convert_to_tensor(value) for value in values.values()],
            )
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"--tf1_prefix: {prefix} cannot be written: {restore.error_reason(error)}") from None
    print(f"{prefix} is written", flush=True)


def _readme(hf_dir: str, model: StoredModel) -> str:
    """README.md. Results of another update than the checkpoint's are left out: they say nothing about it."""
    folder = model.weights if os.path.isdir(model.weights) else os.path.dirname(model.weights) or "."
    updates = restore.step_of(model.weights)
    found = read_results(folder)
    measured = found if found and updates and found["updates"] == updates else None
    name = os.path.basename(os.path.abspath(hf_dir))
    return readme_text(name, model.config, updates, read_run_of(folder), measured)


def _verify(config: ExportConfig, model: StoredModel, values: Values) -> int:
    worst = 0.0
    with Network(model.config, values) as network:
        for what, largest in verification.find_differences(
            network, model.config, config.hf_dir or "", config.saved_model_dir or "", config.tf1_prefix or ""
        ):
            print(f"{what}: largest difference of a logit {largest:.2e}", flush=True)
            worst = max(worst, largest)
    if not worst <= verification.LARGEST_DIFFERENCE:  # NaN included
        print(f"fault: the logits differ by more than {verification.LARGEST_DIFFERENCE:g}; do not use what was written")
        return 1
    return 0
