"""Whole runs with --dynamic_masking: stopped and resumed, and a refused update; two ranks are in test_horovod.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import Batch, encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.distributed.world import World
from bert_pretrain.train import replay
from bert_pretrain.train.job import open_job, training_input
from tests.data.test_dynamic_masking import SEQ_LENGTH, make_examples, write_vocabulary
from tests.data.test_masking import VOCAB, make_instances
from tests.e2e import runs


def write_masked_data(folder: Path, model: ModelConfig) -> dict[str, object]:
    """Settings that name 41 records, fewer than seven updates have examples, with their vocabulary."""
    (folder / "train").mkdir()
    write_shard(str(folder / "train" / "part.tfrecord"), encode_examples(make_examples(make_instances(41, SEQ_LENGTH))))
    return {
        "input_files_dir": str(folder / "train"),
        "bert_config_file": runs.write_model(folder / "model.json", dataclasses.replace(model, vocab_size=VOCAB)),
        "vocab_file": write_vocabulary(folder / "vocab.txt").vocab_file,
        "dynamic_masking": True,
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return write_masked_data(tmp_path_factory.mktemp("masking"), runs.WITH_DROPOUT)


@pytest.fixture(scope="module")
def undisturbed(data: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of twelve updates."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    runs.train(**data, **runs.settings(output_dir=str(output_dir)))
    return output_dir


def test_the_flags_of_newer_recipes_together_end_bit_for_bit_the_same_after_a_kill(data, tmp_path: Path) -> None:
    recipe = {
        "next_sentence_weight": 0.0, "optimizer_type": "adamw", "lr_schedule": "linear", "learning_rate": 1e-3,
        "masked_lm_prob": 0.3, "max_masked_tokens": 20, "eval_files_dir": data["input_files_dir"],
        "eval_batch_size": 8, "do_eval": True, "initialization": "informed",
    }  # fmt: skip
    ends = []
    for name in ("whole", "killed"):
        values = runs.settings(output_dir=str(tmp_path / name), **recipe)
        if name == "killed":
            died = runs.start(runs.flags(**data, **values), before=runs.signal_after(7))
            assert died.returncode == -9, died.stderr
        results = runs.train(**data, **values)
        assert results["next_sentence_accuracy"] is None and results["masked_lm_accuracy"] is not None
        ends.append(runs.tensors(tmp_path / name / "model.ckpt-12"))
    assert ends[0].keys() == ends[1].keys() and "beta2_power" in ends[0]
    for tensor, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][tensor], err_msg=tensor)
    start = runs.tensors(tmp_path / "whole" / "model.ckpt-5")
    changed = {name for name in start if (start[name] != ends[0][name]).any()}
    assert "bert/embeddings/word_embeddings" in changed
    assert not [name for name in changed if name.startswith(("bert/pooler/", "cls/seq_relationship/"))]


def test_killed_and_started_again_ends_bit_for_bit_the_same(data, undisturbed: Path, tmp_path: Path) -> None:
    arguments = runs.flags(**data, **runs.settings(output_dir=str(tmp_path)))
    died = runs.start(arguments, before=runs.signal_after(8))
    assert died.returncode == -9, died.stderr
    again = runs.start(arguments)
    assert again.returncode == 0, again.stderr
    assert f"continuing {tmp_path}/model.ckpt-5" in again.stdout
    assert "masks: " in again.stdout
    one, other = (runs.tensors(path / "model.ckpt-12") for path in (undisturbed, tmp_path))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_static_masks_train_other_weights_and_a_change_is_told(data, undisturbed, tmp_path, capsys) -> None:
    static = {**data, "dynamic_masking": False}
    runs.train(**static, **runs.settings(output_dir=str(tmp_path), num_train_steps=5))
    assert "note: --vocab_file: " in capsys.readouterr().out
    one, other = (runs.tensors(path / "model.ckpt-5") for path in (undisturbed, tmp_path))
    assert any((one[name] != other[name]).any() for name in one)
    runs.train(**data, **runs.settings(output_dir=str(tmp_path), masked_lm_prob=0.1))
    told = capsys.readouterr().out
    assert "--dynamic_masking was False at the previous start and is True now" in told
    assert "--masked_lm_prob was 0.15 at the previous start and is 0.1 now" in told
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["settings"]["masking"]["dynamic_masking"] and len(described["data"]["train"]["vocabulary"]) == 64


def test_a_refused_update_is_computed_again_with_its_masks(data, tmp_path: Path) -> None:
    config = runs.make_config(**data, **runs.settings(output_dir=str(tmp_path)))
    job = open_job(config, World(), lambda *progress: None)
    inputs = training_input(job, first_update=9)  # in the second epoch
    read = replay.read_examples(job, inputs, 9)
    expected = build_batch(read, config.data.train_batch_size, config.data.pack_sequences)
    with tf.Graph().as_default():
        features = inputs()
        with tf.compat.v1.Session() as session:
            session.run(inputs.initializer)
            trained = session.run(features)
    for name in Batch._fields:
        np.testing.assert_array_equal(trained[name], getattr(expected, name), err_msg=name)
