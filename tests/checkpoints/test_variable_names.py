"""Checkpoints of other programs, written by TensorFlow under their names, load the same tensors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.model import variables
from tests.checkpoints.test_init_hugging_face import VALUES, equal, load
from tests.references.random_examples import TINY

HEADS = TINY.num_attention_heads
HEAD_SIZE = TINY.hidden_size // HEADS
LAYERS = TINY.num_hidden_layers


def save(prefix: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """A TF1 checkpoint, which also has what programs save beside the weights."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        held = {name: tf.compat.v1.Variable(value, use_resource=True) for name, value in tensors.items()}
        held["global_step"] = tf.compat.v1.Variable(np.int64(7), use_resource=True)
        for name in list(tensors)[:3]:
            held[f"{name}/Adam"] = tf.compat.v1.Variable(np.zeros_like(tensors[name]), use_resource=True)
        session.run(tf.compat.v1.variables_initializer(list(held.values())))
        return tf.compat.v1.train.Saver(held).save(session, str(prefix), write_meta_graph=False)


def save_objects(prefix: Path, tensors: Mapping[str, np.ndarray], names: Optional[Mapping[str, str]] = None) -> str:
    """An object graph with these keys; names: key -> the name of its variable."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        root = tf.Module()
        held = {}
        for key, value in tensors.items():
            *path, last = key.split("/")
            place = root
            for part in path:
                if not hasattr(place, part):
                    setattr(place, part, tf.Module())
                place = getattr(place, part)
            held[key] = tf.compat.v1.Variable(value, name=(names or {}).get(key, "Variable"), use_resource=True)
            setattr(place, last, held[key])
        session.run(tf.compat.v1.variables_initializer(list(held.values())))
        return tf.train.Checkpoint(model=root).save(str(prefix))


def with_numbered_norms(name: str) -> str:
    numbers = itertools.count()
    table = {one: f"layer_normalization_{next(numbers)}" for one in VALUES if one.endswith("LayerNorm/beta")}
    found = table.get(re.sub("gamma$", "beta", name))
    return name.replace("LayerNorm", found) if found else name


def of_transformers(name: str) -> str:
    name = re.sub(r"(word|token_type|position)_embeddings$", r"\1_embeddings/embeddings", name)
    name = name.replace("word_embeddings/embeddings", "word_embeddings/weight").replace("/layer_", "/layer_._")
    name = name.replace("cls/predictions/output_bias", "mlm___cls/predictions/bias")
    name = name.replace("cls/predictions/transform", "mlm___cls/predictions/transform")
    name = name.replace("cls/seq_relationship/output_weights", "nsp___cls/seq_relationship/kernel")
    name = name.replace("cls/seq_relationship/output_bias", "nsp___cls/seq_relationship/bias")
    return f"tf_bert_for_pre_training/{name}"


def replaced(name: str, rows: list[tuple[str, str]]) -> str:
    """As tf1_bert_checkpoint_converter_lib.py of tensorflow/models renames."""
    for old, new in rows:
        name = name.replace(old, new)
    return name


V1 = [
    ("bert/", "bert_model/"),
    ("embeddings/word_embeddings", "word_embeddings/embeddings"),
    ("embeddings/token_type_embeddings", "embedding_postprocessor/type_embeddings"),
    ("embeddings/position_embeddings", "embedding_postprocessor/position_embeddings"),
    ("embeddings/LayerNorm", "embedding_postprocessor/layer_norm"),
    ("attention/self", "self_attention"),
    ("attention/output/dense", "self_attention_output"),
    ("attention/output/LayerNorm", "self_attention_layer_norm"),
    ("intermediate/dense", "intermediate"),
    ("output/dense", "output"),
    ("output/LayerNorm", "output_layer_norm"),
    ("pooler/dense", "pooler_transform"),
]
V2 = [
    ("bert/", ""),
    ("encoder", "transformer"),
    ("embeddings/word_embeddings", "word_embeddings/embeddings"),
    ("embeddings/token_type_embeddings", "type_embeddings/embeddings"),
    ("embeddings/position_embeddings", "position_embedding/embeddings"),
    ("embeddings/LayerNorm", "embeddings/layer_norm"),
    ("attention/self", "self_attention"),
    ("attention/output/dense", "self_attention/attention_output"),
    ("attention/output/LayerNorm", "self_attention_layer_norm"),
    ("intermediate/dense", "intermediate"),
    ("output/dense", "output"),
    ("output/LayerNorm", "output_layer_norm"),
    ("pooler/dense", "pooler_transform"),
    ("cls/predictions", "bert/cls/predictions"),
    ("cls/predictions/output_bias", "cls/predictions/output_bias/bias"),
    ("cls/seq_relationship/output_bias", "predictions/transform/logits/bias"),
    ("cls/seq_relationship/output_weights", "predictions/transform/logits/kernel"),
]
KEYS = [
    ("bert/embeddings/word_embeddings", "layer_with_weights-0/embeddings"),
    ("bert/embeddings/position_embeddings", "layer_with_weights-1/embeddings"),
    ("bert/embeddings/token_type_embeddings", "layer_with_weights-2/embeddings"),
    ("bert/embeddings/LayerNorm", "layer_with_weights-3"),
    *((f"bert/encoder/layer_{layer}/", f"layer_with_weights-{layer + 4}/") for layer in range(LAYERS)),
    *((f"attention/self/{kind}", f"_attention_layer/_{kind}_dense") for kind in ("query", "key", "value")),
    ("attention/output/dense", "_attention_layer/_output_dense"),
    ("attention/output/LayerNorm", "_attention_layer_norm"),
    ("intermediate/dense", "_intermediate_dense"),
    ("/output/dense", "/_output_dense"),
    ("/output/LayerNorm", "/_output_layer_norm"),
    ("bert/pooler/dense", f"layer_with_weights-{LAYERS + 4}"),
]
NEW_KEYS = [
    ("bert/embeddings/word_embeddings", "encoder/_embedding_layer/embeddings"),
    ("bert/embeddings/position_embeddings", "encoder/_position_embedding_layer/embeddings"),
    ("bert/embeddings/token_type_embeddings", "encoder/_type_embedding_layer/embeddings"),
    ("bert/embeddings/LayerNorm", "encoder/_embedding_norm_layer"),
    ("bert/encoder/layer_", "encoder/_transformer_layers/"),
    *KEYS[4 + LAYERS : -1],
    ("bert/pooler/dense", "encoder/_pooler_layer"),
    ("cls/predictions/output_bias", "masked_lm/bias"),
    ("cls/predictions/transform/dense", "masked_lm/dense"),
    ("cls/predictions/transform/LayerNorm", "masked_lm/layer_norm"),
]


def in_keras_shapes(name: str, value: np.ndarray) -> np.ndarray:
    """Attention by heads, and the next-sentence head as a Dense layer has it."""
    if re.search(r"attention/self/\w+/kernel", name):
        return value.reshape(-1, HEADS, HEAD_SIZE)
    if re.search(r"attention/self/\w+/bias", name):
        return value.reshape(HEADS, HEAD_SIZE)
    if name.endswith("attention/output/dense/kernel"):
        return value.reshape(HEADS, HEAD_SIZE, -1)
    return value.T if name == "cls/seq_relationship/output_weights" else value


def in_flat_keras_shapes(name: str, value: np.ndarray) -> np.ndarray:
    return value.T if name == "cls/seq_relationship/output_weights" else value


@pytest.mark.parametrize(
    ("rename", "reshape"),
    [
        (with_numbered_norms, None),
        (lambda name: f"module/{name}", None),
        (lambda name: f"model/bert_1/{name}".replace("LayerNorm", "layer_norm"), None),
        (of_transformers, in_flat_keras_shapes),
        (lambda name: replaced(name, V1), None),
        (lambda name: replaced(name, V2), in_keras_shapes),
    ],
    ids=["keras norms", "TF-Hub", "other scope", "transformers", "tensorflow/models 1", "tensorflow/models 2"],
)
def test_a_scheme_of_names_loads_all(
    tmp_path: Path, rename: Callable[[str], str], reshape: Optional[Callable[[str, np.ndarray], np.ndarray]]
) -> None:
    tensors = {rename(name): reshape(name, value) if reshape else value for name, value in VALUES.items()}
    report, loaded = load(save(tmp_path / "ckpt", tensors))
    assert equal(loaded, VALUES)
    assert "46 of 46 variables matched" in report and "found under other names" in report
    assert "3 optimizer slots, global_step" in report


def test_an_object_graph_is_read_by_its_variables_names_or_its_keys(tmp_path: Path) -> None:
    encoder = {name: value for name, value in VALUES.items() if name.startswith("bert/")}
    keys = {name: replaced(name, KEYS) for name in encoder}
    by_key = {keys[name]: in_keras_shapes(name, value) for name, value in encoder.items()}
    by_name = {f"x{number}/v": in_keras_shapes(name, value) for number, (name, value) in enumerate(VALUES.items())}
    names = {f"x{number}/v": replaced(name, V2) for number, name in enumerate(VALUES)}
    heads = {name: value for name, value in VALUES.items() if name.startswith("cls/predictions")}
    new = {replaced(name, NEW_KEYS): in_keras_shapes(name, value) for name, value in {**encoder, **heads}.items()}
    _, loaded = load(save_objects(tmp_path / "names", by_name, names))
    assert equal(loaded, VALUES)
    for path, tensors, held in ((tmp_path / "keys", by_key, encoder), (tmp_path / "new", new, {**encoder, **heads})):
        _, loaded = load(save_objects(path, tensors), allow_partial=True)
        assert equal({name: loaded[name] for name in held}, held)


def test_slots_under_another_scope_are_loaded_too(tmp_path: Path) -> None:
    slots = {f"{name}/LAMB": np.full_like(value, 3) for name, value in VALUES.items()}
    prefix = save(tmp_path / "c", {f"module/{name}": value for name, value in {**VALUES, **slots}.items()})
    with tf.Graph().as_default():
        weights = variables.create_variables(TINY, seed=0)
        held = {name: tf.compat.v1.Variable(np.zeros_like(value), name=name) for name, value in slots.items()}
        report, stored = restore.load_init_checkpoint(prefix, weights, held, allow_partial=False)
    assert f"{len(slots)} of {len(slots)} of the optimizer's" in report
    assert all((stored[name].get_tensor(name) == 3).all() for name in slots)


def test_parts_of_a_variable_are_joined(tmp_path: Path) -> None:
    tensors = dict(VALUES)
    whole = tensors.pop("bert/embeddings/word_embeddings")
    for number, rows in enumerate(np.array_split(whole, 12)):
        tensors[f"bert/embeddings/word_embeddings/part_{number}"] = rows
    _, loaded = load(save(tmp_path / "c", tensors))
    assert equal(loaded, VALUES)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64], ids=lambda dtype: dtype.name)
def test_other_floats_are_cast_with_a_note(tmp_path: Path, dtype: tf.DType) -> None:
    cast = {name: value.astype(dtype.as_numpy_dtype) for name, value in VALUES.items()}
    report, loaded = load(save(tmp_path / "c", cast))
    assert equal(loaded, {name: value.astype(np.float32) for name, value in cast.items()})
    assert f"46 cast from {dtype.name}" in report


def test_unknown_names_are_shown_beside_the_models(tmp_path: Path) -> None:
    tensors = {name.replace("LayerNorm/gamma", "norm/g").replace("LayerNorm/beta", "norm/b"): value
               for name, value in VALUES.items()}  # fmt: skip
    with pytest.raises(ValueError, match="34 of 46 variables matched, 12 missing") as error:
        load(save(tmp_path / "c", tensors))
    message = str(error.value)
    assert "bert/embeddings/LayerNorm/beta" in message and "bert/embeddings/norm/b" in message
    assert "bert_config" not in message and "\n" not in message
    with pytest.raises(ValueError, match="0 of 46 variables matched"):
        load(save(tmp_path / "d", {f"w{number}": value for number, value in enumerate(VALUES.values())}), True)


def test_other_sizes_are_told_with_both_shapes_and_the_config(tmp_path: Path) -> None:
    wider = {**VALUES, "bert/pooler/dense/bias": np.zeros(33, np.float32)}
    shallow = {name: value for name, value in VALUES.items() if "layer_1" not in name}
    with pytest.raises(ValueError, match=r"checkpoint \[33\], model \[32\].*bert_config.json"):
        load(save(tmp_path / "c", wider))
    with pytest.raises(ValueError, match=r"has 1 layers.*bert_config.json"):
        load(save(tmp_path / "d", shallow))


def test_two_models_in_one_checkpoint_are_refused(tmp_path: Path) -> None:
    both = {f"{scope}/{name}": value for scope in ("teacher", "student") for name, value in VALUES.items()}
    with pytest.raises(ValueError, match=r"teacher/.* and student/.* both stand for|student/.* and teacher/") as error:
        load(save(tmp_path / "c", both))
    assert "\n" not in str(error.value)


def test_another_network_is_not_taken_for_bert(tmp_path: Path) -> None:
    others = {name.replace("bert/", "roberta/"): value for name, value in VALUES.items()}
    with pytest.raises(ValueError, match=r"\b7 of 46 variables matched"):
        load(save(tmp_path / "c", others))


def test_the_folder_of_a_hub_module_names_its_variables(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    save(tmp_path / "variables" / "variables", {f"module/{name}": value for name, value in VALUES.items()})
    _, loaded = load(str(tmp_path))
    assert equal(loaded, VALUES)
