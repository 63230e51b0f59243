"""Hugging Face's BertForPreTraining, with weights given by the TF1 checkpoint's variable names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from transformers import BertConfig, BertForPreTraining

from bert_pretrain.config.model import ModelConfig
from tests.references.random_examples import Examples

_NOT_MASKED = -100  # the label that torch's cross entropy ignores


class Results(NamedTuple):
    """Outputs of Hugging Face's model for a batch, without dropout."""

    prediction_logits: np.ndarray  # [E, S, V]
    seq_relationship_logits: np.ndarray  # [E, 2]
    loss: float
    gradients: dict[str, np.ndarray]  # by the TF1 checkpoint's variable names, with its shapes


def model(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> BertForPreTraining:
    """The model with these weights. gelu_new is the tanh form, with which the published checkpoints were trained."""
    network = BertForPreTraining(BertConfig(**{**dataclasses.asdict(config), "hidden_act": "gelu_new"}))
    parameters = {checkpoint_name(name): (name, value) for name, value in network.named_parameters()}
    assert set(parameters) == set(weights)
    with torch.no_grad():
        for name, value in weights.items():
            own_name, parameter = parameters[name]
            parameter.copy_(torch.tensor(value.T if _is_transposed(own_name) else value))
    return network


def results(config: ModelConfig, weights: Mapping[str, np.ndarray], batch: Examples) -> Results:
    """Forward and backward on padded examples."""
    network = model(config, weights).eval()
    output = network(
        input_ids=torch.tensor(batch.input_ids, dtype=torch.long),
        attention_mask=torch.tensor(batch.input_mask, dtype=torch.long),
        token_type_ids=torch.tensor(batch.segment_ids, dtype=torch.long),
        labels=torch.tensor(token_labels(batch), dtype=torch.long),
        next_sentence_label=torch.tensor(batch.next_sentence_labels, dtype=torch.long),
    )
    output.loss.backward()
    gradients = {}
    for name, parameter in network.named_parameters():
        value = parameter.grad.numpy()
        gradients[checkpoint_name(name)] = value.T if _is_transposed(name) else value
    return Results(
        output.prediction_logits.detach().numpy(),
        output.seq_relationship_logits.detach().numpy(),
        output.loss.item(),
        gradients,
    )


def token_labels(batch: Examples) -> np.ndarray:
    """[E, S] labels in Hugging Face's format: the ids of the masked tokens at their positions, -100 elsewhere."""
    labels = np.full(batch.input_ids.shape, _NOT_MASKED, np.int64)
    example, slot = np.nonzero(batch.masked_lm_weights)
    labels[example, batch.masked_lm_positions[example, slot]] = batch.masked_lm_ids[example, slot]
    return labels


def checkpoint_name(name: str) -> str:
    """'bert.encoder.layer.0.output.dense.weight' -> 'bert/encoder/layer_0/output/dense/kernel'."""
    if name == "cls.predictions.bias":
        return "cls/predictions/output_bias"
    path, kind = re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", name).replace(".", "/").rsplit("/", 1)
    if path.endswith("LayerNorm"):
        return f"{path}/{ {'weight': 'gamma', 'bias': 'beta'}[kind] }"
    if path == "cls/seq_relationship":
        return f"{path}/output_{kind}s" if kind == "weight" else f"{path}/output_bias"
    if path.endswith("embeddings"):
        return path
    return f"{path}/{ {'weight': 'kernel', 'bias': 'bias'}[kind] }"


def _is_transposed(name: str) -> bool:
    """True for linear layers: [outputs, inputs] in torch, [inputs, outputs] in the checkpoint."""
    return checkpoint_name(name).endswith("/kernel")
