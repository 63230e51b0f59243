"""One mapping of names, in both directions, against the independent one of the tests' reference."""

from __future__ import annotations

import numpy as np
import pytest

from bert_pretrain.hugging_face import names
from bert_pretrain.model import variables
from tests.references.random_examples import TINY

SHAPES = variables.variable_shapes(TINY)


def test_every_variable_has_one_name_there_and_comes_back() -> None:
    theirs = [names.hugging_face_name(name) for name in SHAPES]
    assert len(set(theirs)) == len(SHAPES)
    assert [names.variable_name(name) for name in theirs] == list(SHAPES)


@pytest.mark.interop
def test_the_names_and_shapes_are_those_of_the_network() -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    network = transformers.BertForPreTraining(transformers.BertConfig(**vars(TINY)))
    theirs = {name: tuple(value.shape) for name, value in network.named_parameters()}
    ours = {
        names.hugging_face_name(name): names.convert_value(name, np.zeros(shape)).shape
        for name, shape in SHAPES.items()
    }
    assert ours == theirs


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings"),
        ("encoder.layer.11.attention.self.query.bias", "bert/encoder/layer_11/attention/self/query/bias"),
        ("bert.embeddings.LayerNorm.gamma", "bert/embeddings/LayerNorm/gamma"),
        ("cls.predictions.transform.LayerNorm.beta", "cls/predictions/transform/LayerNorm/beta"),
        ("cls.predictions.decoder.weight", "bert/embeddings/word_embeddings"),
        ("cls.predictions.decoder.bias", "cls/predictions/output_bias"),
        ("embeddings.position_ids", None),
        ("classifier.weight", None),
        ("roberta.encoder.layer.0.output.dense.weight", None),
        ("bert.encoder.layer.0.output.dense.lora_A.weight", None),
    ],
)
def test_other_names_of_the_same_and_names_of_other_models(theirs: str, ours: str) -> None:
    assert names.variable_name(theirs) == ours
