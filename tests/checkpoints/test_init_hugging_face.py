"""--init_checkpoint on a Hugging Face folder or a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from bert_pretrain.checkpoints import restore
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.hugging_face import names
from bert_pretrain.model import variables
from tests.e2e import runs
from tests.references import random_examples
from tests.references.random_examples import TINY

VALUES = random_examples.weights(variables.variable_shapes(TINY))
THEIRS = {names.hugging_face_name(name): names.convert_value(name, value) for name, value in VALUES.items()}


def write(folder: Path, tensors: dict[str, np.ndarray]) -> str:
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return str(folder)


def load(path: str, allow_partial: bool = False) -> tuple[str, dict[str, np.ndarray]]:
    """The report, and the variables' values when a session has initialized them."""
    with tf.Graph().as_default():
        weights = variables.create_variables(TINY, seed=0)
        report, stored = restore.load_init_checkpoint(path, weights, {}, allow_partial)
        with tf.compat.v1.Session() as session:
            restore.initialize_variables(session, stored)
            return report, session.run(weights)


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("file", ["", "/model.safetensors"])
def test_all_is_loaded_from_a_folder_or_its_file(tmp_path: Path, file: str) -> None:
    report, loaded = load(write(tmp_path, THEIRS) + file)
    assert "46 of 46 variables matched, 0 of its tensors not used" in report
    assert equal(loaded, VALUES)


def test_without_heads_what_is_missing_is_named_and_needs_permission(tmp_path: Path) -> None:
    bare = {name[len("bert.") :]: value for name, value in THEIRS.items() if name.startswith("bert.")}
    path = write(tmp_path, {**bare, "embeddings.position_ids": np.arange(40)[None]})
    with pytest.raises(ValueError, match=r"39 of 46 variables matched, 7 missing \(cls/predictions/") as error:
        load(path)
    assert "--allow_partial_init" in str(error.value) and "\n" not in str(error.value)
    report, loaded = load(path, allow_partial=True)
    assert "1 of its tensors not used (embeddings.position_ids)" in report
    assert all(np.array_equal(loaded[name], VALUES[name]) for name in VALUES if name.startswith("bert/"))
    assert not loaded["cls/predictions/output_bias"].any()


def test_old_names_tied_copies_and_float16(tmp_path: Path) -> None:
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value.astype(
            np.float16
        )
        for name, value in THEIRS.items()
    }
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()
    _, loaded = load(write(tmp_path, tensors))
    assert equal(loaded, {name: value.astype(np.float16).astype(np.float32) for name, value in VALUES.items()})
    tensors["cls.predictions.decoder.weight"] = tensors["cls.predictions.decoder.weight"] + 1
    with pytest.raises(ValueError, match=r"cls\.predictions\.decoder\.weight differ|decoder\.weight and .* differ"):
        load(write(tmp_path, tensors))


def write_bfloat16(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes the upper halves of float32 values in the format's own words; returns what they stand for."""
    halves = {name: (value.astype(np.float32).view(np.uint32) >> 16).astype("<u2") for name, value in tensors.items()}
    header, begin = {}, 0
    for name, value in halves.items():
        end = begin + value.nbytes
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(value.tobytes() for value in halves.values()))
    return {name: (value.astype(np.uint32) << 16).view(np.float32) for name, value in halves.items()}


def test_bfloat16(tmp_path: Path) -> None:
    written = write_bfloat16(tmp_path / "model.safetensors", THEIRS)
    report, loaded = load(str(tmp_path))
    assert "46 of 46 variables matched" in report
    expected = {name: names.convert_value(name, written[names.hugging_face_name(name)]) for name in VALUES}
    assert equal(loaded, expected)
    assert not equal(loaded, VALUES) and max(np.abs(loaded[name] - VALUES[name]).max() for name in VALUES) < 0.01


@pytest.mark.interop
def test_what_transformers_saves_as_bfloat16_in_several_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the interop extra: bash init_tf.sh --interop")
    transformers = pytest.importorskip("transformers", reason="the interop extra: bash init_tf.sh --interop")
    settings = {**vars(TINY), "hidden_act": "gelu_new"}
    network = transformers.BertForPreTraining(transformers.BertConfig(**settings)).to(torch.bfloat16)
    network.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file() and len(list(tmp_path.glob("*.safetensors"))) > 2
    report, loaded = load(str(tmp_path))
    assert "46 of 46 variables matched" in report
    theirs = {name: value.float().numpy() for name, value in network.state_dict().items()}
    assert equal(loaded, {name: names.convert_value(name, theirs[names.hugging_face_name(name)]) for name in VALUES})


def write_shards(folder: Path, num_shards: int) -> dict[str, str]:
    """Float32 tensors in several files and their index; returns its weight_map."""
    weight_map = {name: f"model-{number % num_shards}.safetensors" for number, name in enumerate(THEIRS)}
    for shard in set(weight_map.values()):
        save_file({name: THEIRS[name] for name in THEIRS if weight_map[name] == shard}, str(folder / shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize("file", ["", "/model.safetensors.index.json"])
def test_several_files(tmp_path: Path, file: str) -> None:
    write_shards(tmp_path, 3)
    report, loaded = load(f"{tmp_path}{file}")
    assert "46 of 46 variables matched, 0 of its tensors not used" in report
    assert equal(loaded, VALUES)


def test_a_damaged_set_of_files_is_one_line(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    weight_map = write_shards(tmp_path, 3)
    name = next(iter(weight_map))
    others = {
        "lacks": {**weight_map, name: "model-1.safetensors"},
        "must name a file of the same folder": {**weight_map, name: "../model-0.safetensors"},
        "model-7.safetensors cannot be read": {**weight_map, name: "model-7.safetensors"},
    }
    contents = {problem: json.dumps({"weight_map": changed}) for problem, changed in others.items()}
    for problem, content in {**contents, "is no index": "[]", "no object weight_map": "{"}.items():
        index.write_text(content)
        with pytest.raises(ValueError, match=problem) as error:
            load(str(tmp_path))
        assert str(error.value).startswith("--init_checkpoint: ") and "\n" not in str(error.value)


def test_a_pickle_and_a_damaged_file_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"--init_checkpoint: .*pickle.*save_pretrained"):
            load(str(path))
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(ValueError, match=r"--init_checkpoint: .*00001-of-00002.bin is a pickle"):
        load(str(tmp_path))
    path = write(tmp_path, THEIRS) + "/model.safetensors"
    whole = Path(path).read_bytes()
    for content in (whole[:-5], whole[:100], b""):
        Path(path).write_bytes(content)
        with pytest.raises(ValueError, match=r"--init_checkpoint: .*cannot be read") as error:
            restore.open_reader(path, "init_checkpoint")
        assert "\n" not in str(error.value)


def test_a_run_starts_from_it_and_evaluates_it(tmp_path: Path) -> None:
    data = runs.make_data(tmp_path)
    model = ModelConfig.from_json(data["bert_config_file"])
    values = random_examples.weights(variables.variable_shapes(model))
    (tmp_path / "hf").mkdir()
    folder = write(tmp_path / "hf", {names.hugging_face_name(n): names.convert_value(n, v) for n, v in values.items()})
    (tmp_path / "hf" / "config.json").write_text(
        json.dumps({**vars(model), "hidden_act": "gelu_new", "model_type": "bert", "transformers_version": "5"})
    )
    data["bert_config_file"] = f"{folder}/config.json"
    runs.train(
        **data,
        **runs.settings(num_train_steps=1, learning_rate=0.0, num_warmup_steps=0),
        init_checkpoint=folder,
        output_dir=str(tmp_path / "run"),
    )
    held = runs.tensors(tmp_path / "run" / "model.ckpt-1")
    assert all(np.array_equal(held[name], value) for name, value in values.items())
    alone = {"do_eval": True, "eval_batch_size": 24, "use_xla": False, **data}
    results = [
        runs.train(**alone, output_dir=str(tmp_path / name), **source)
        for name, source in (
            ("a", {"init_checkpoint": folder}),
            ("b", {"eval_checkpoint_path": str(tmp_path / "run")}),
        )
    ]
    assert results[0]["masked_lm_loss"] == results[1]["masked_lm_loss"] is not None


def test_weights_of_keras_and_flax_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, argument in (("tf_model.h5", "from_tf=True"), ("flax_model.msgpack", "from_flax=True")):
        (tmp_path / name).write_bytes(b"x")
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(ValueError, match=f"--init_checkpoint: .*{name}.*{argument}") as error:
                load(str(path))
            assert "\n" not in str(error.value)
        (tmp_path / name).unlink()
