"""What is exported is the checkpoint, to the bit, whatever program made it; and nothing half."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors import safe_open

from bert_pretrain.config.export import ExportConfig
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.export import hugging_face_folder, verification, writing
from bert_pretrain.inference.stored_model import Network
from bert_pretrain.model import variables
from tests import forked
from tests.e2e import runs
from tests.export.conftest import Exported
from tests.references.random_examples import TINY


def export(checkpoint: str, **settings: object) -> int:
    config = ExportConfig(checkpoint, **settings)
    config.check()
    return writing.export_model(config)


def test_the_weights_alone_are_there_bit_for_bit(exported: Exported) -> None:
    held = runs.tensors(Path(exported.tf1_prefix))
    assert set(held) == set(exported.weights)
    for name, value in exported.weights.items():
        assert held[name].tobytes() == value.tobytes(), name


def test_tied_weights_are_stored_once_and_marked_for_pytorch(exported: Exported) -> None:
    with safe_open(f"{exported.hf_dir}/model.safetensors", framework="numpy") as file:
        assert len(list(file.keys())) == len(exported.weights)
        assert file.metadata() == {"format": "pt"}
        assert "cls.predictions.decoder.weight" not in file.keys()  # noqa: SIM118


def test_export_of_import_is_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    assert export(exported.hf_dir, tf1_prefix=str(tmp_path / "back"), hf_dir=str(tmp_path / "again")) == 0
    held = runs.tensors(tmp_path / "back")
    assert {name: value.tobytes() for name, value in held.items()} == {
        name: value.tobytes() for name, value in exported.weights.items()
    }
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == Path(exported.hf_dir, name).read_bytes(), name


@pytest.mark.parametrize("flag", ["hf_dir", "saved_model_dir", "tf1_prefix"])
def test_what_cannot_be_written_is_refused_before_the_weights_are_read(
    exported: Exported, tmp_path: Path, flag: str
) -> None:
    (tmp_path / "file").write_text("")
    damaged = tmp_path / "model.ckpt-1"
    for part in ("index", "data-00000-of-00001"):
        Path(f"{damaged}.{part}").write_bytes(b"damaged")
    shape = f"{exported.hf_dir}/config.json"
    with pytest.raises(ValueError, match=f"--{flag}: .*file.* cannot be written"):
        export(
            str(damaged),
            bert_config_file=shape,
            vocab_file=f"{exported.hf_dir}/vocab.txt",
            **{flag: f"{tmp_path}/file/x"},
        )


def test_the_command_writes_what_its_flags_ask_for(exported: Exported, tmp_path: Path) -> None:
    flags = [f"--checkpoint={exported.hf_dir}", f"--tf1_prefix={tmp_path}/weights"]
    done = forked.run_module("bert_pretrain.export", flags)
    assert done.returncode == 0, done.stderr
    assert set(runs.tensors(tmp_path / "weights")) == set(exported.weights)


def test_of_mlperfs_checkpoint_with_slots_the_weights_are_exported(tmp_path: Path) -> None:
    model = ModelConfig(97, 8, 24, 2, 16, max_position_embeddings=32)
    prefix = tmp_path / "model.ckpt-28252"
    runs.write_mlperf_checkpoint(str(prefix), model)
    runs.write_model(tmp_path / "bert_config.json", model)
    stored = runs.tensors(prefix)
    assert len(stored) == 1197
    assert export(str(prefix), tf1_prefix=str(tmp_path / "weights")) == 0
    written = runs.tensors(tmp_path / "weights")
    assert set(written) == set(variables.variable_shapes(model))
    assert all(value.tobytes() == stored[name].tobytes() for name, value in written.items())


def test_every_difference_is_small_and_a_damaged_copy_is_seen(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "a [1]\udcff").symlink_to(exported.root)
    paths = (exported.hf_dir, exported.saved_model_dir, exported.tf1_prefix)
    odd_paths = [path.replace(str(exported.root), f"{tmp_path}/a [1]\udcff") for path in paths]
    with Network(TINY, exported.weights) as network:
        found = list(verification.find_differences(network, TINY, *odd_paths))
        assert {difference.what for difference in found} >= {"TF1 checkpoint read back", "SavedModel"}
        assert all(difference.largest < 1e-4 for difference in found), found
        changed = {**exported.weights, "bert/pooler/dense/bias": exported.weights["bert/pooler/dense/bias"] + 1}
        writing._write_tf1(str(tmp_path / "other"), changed)
        (difference,) = verification.find_differences(network, TINY, tf1_prefix=str(tmp_path / "other"))
        assert difference.largest > verification.LARGEST_DIFFERENCE


def test_a_failure_leaves_nothing(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hugging_face_folder, "save_file", failing)
    with pytest.raises(ValueError, match=r"--hf_dir: .* cannot be written: No space left on device"):
        export(exported.checkpoint, hf_dir=str(tmp_path / "hf"))
    assert os.listdir(tmp_path) == []


def test_what_exists_is_not_overwritten(exported: Exported) -> None:
    for flag in ("hf_dir", "saved_model_dir", "tf1_prefix"):
        with pytest.raises(ValueError, match=f"--{flag}: .* exists already"):
            export(exported.checkpoint, **{flag: getattr(exported, flag)})
    with pytest.raises(ValueError, match="nothing to write: give --hf_dir"):
        export(exported.checkpoint)


def test_another_model_or_vocabulary_is_one_line(exported: Exported, tmp_path: Path) -> None:
    other = runs.write_model(tmp_path / "other.json", ModelConfig(97, 16, 2, 2, 16))
    with pytest.raises(ValueError, match=r"--checkpoint: .* holds another model"):
        export(exported.checkpoint, bert_config_file=other, tf1_prefix=str(tmp_path / "out"))
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(ValueError, match=r"--vocab_file: .*vocab.txt has no \[PAD\]"):
        export(exported.checkpoint, vocab_file=str(tmp_path / "vocab.txt"), hf_dir=str(tmp_path / "out"))


def test_the_readme_tells_what_the_run_left(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = runs.make_data(tmp_path)
    results = runs.train(**data, **runs.settings(num_train_steps=2, do_eval=True), output_dir=str(tmp_path / "run"))
    assert (
        export(str(tmp_path / "run"), vocab_file=f"{exported.root}/vocab.txt", hf_dir=str(tmp_path / "hf"), verify=True)
        == 0
    )
    assert "largest difference of a logit" in capsys.readouterr().out
    page = (tmp_path / "hf" / "README.md").read_text()
    assert page.startswith("---\nlibrary_name: transformers\n")
    assert f"value: {results['masked_lm_accuracy']:.6g}" in page and "- Updates: 2" in page
    assert "120 records" in page
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["hidden_act"] == "gelu_new"


def test_the_signatures_are_tensorflow_hubs(exported: Exported) -> None:
    loaded = tf.saved_model.load(exported.saved_model_dir)
    encode = loaded.signatures["serving_default"]
    assert {name: spec.dtype for name, spec in encode.structured_input_signature[1].items()} == dict.fromkeys(
        ("input_word_ids", "input_mask", "input_type_ids"), tf.int32
    )
    assert set(encode.structured_outputs) == {"pooled_output", "sequence_output", "default"}
    examples = verification.random_examples(TINY)
    inputs = dict(zip(("input_word_ids", "input_mask", "input_type_ids"), map(tf.constant, examples)))
    outputs, called = encode(**inputs), loaded(inputs)
    with Network(TINY, exported.weights) as network:
        expected = network.run(*examples)
    np.testing.assert_allclose(outputs["pooled_output"], expected.pooled_output, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(outputs["pooled_output"], outputs["default"])
    np.testing.assert_array_equal(outputs["pooled_output"], called["default"])
    is_token = examples.mask > 0
    np.testing.assert_allclose(
        outputs["sequence_output"].numpy()[is_token], expected.sequence_output[is_token], rtol=0, atol=1e-5
    )
