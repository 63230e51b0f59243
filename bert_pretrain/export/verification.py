"""Compares the logits of exported files with those of the checkpoint, on random examples."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.export.saved_model import INPUTS
from bert_pretrain.inference.stored_model import Network, StoredModel
from bert_pretrain.system.files import plain_name

LARGEST_DIFFERENCE = 1e-3  # above it the files are not the same model; rounding gives less than 1e-4
_NUM_EXAMPLES, _MAX_TOKENS = 4, 64


class Logits(NamedTuple):
    """Both heads' outputs for the examples."""

    masked_lm: np.ndarray  # [E, S, V]
    next_sentence: np.ndarray  # [E, 2]


class Difference(NamedTuple):
    """How far what was written is from the checkpoint."""

    what: str
    largest: float  # over all logits of tokens that are not padding


class PaddedExamples(NamedTuple):
    """Random inputs, [E, S] int32 each."""

    word_ids: np.ndarray
    mask: np.ndarray
    type_ids: np.ndarray


def random_examples(config: ModelConfig) -> PaddedExamples:
    """Examples of different lengths; the first has no padding."""
    random = np.random.default_rng(0)
    shape = _NUM_EXAMPLES, min(_MAX_TOKENS, config.max_position_embeddings)
    lengths = np.linspace(shape[1], max(1, shape[1] // 4), _NUM_EXAMPLES).astype(int)[:, None]
    slots = np.arange(shape[1])[None, :]
    mask = (slots < lengths).astype(np.int32)
    words = random.integers(0, config.vocab_size, shape).astype(np.int32) * mask
    second = (slots >= lengths // 2) & (config.type_vocab_size > 1)
    return PaddedExamples(words, mask, second.astype(np.int32) * mask)


def find_differences(
    network: Network, config: ModelConfig, hf_dir: str = "", saved_model_dir: str = "", tf1_prefix: str = ""
) -> Iterator[Difference]:
    """A Difference for everything that was written; with torch and transformers, one for Hugging Face's network."""
    examples = random_examples(config)
    expected = _logits_of_network(network, examples)

    def difference(what: str, found: Logits) -> Difference:
        return Difference(what, _largest_difference(expected, found, examples.mask > 0))

    for what, path in (("TF1 checkpoint read back", tf1_prefix), ("safetensors read back", hf_dir)):
        if path:
            values = StoredModel(path, "verify", config, None, True).read_values()
            with Network(config, values) as read_back:
                yield difference(what, _logits_of_network(read_back, examples))
    if saved_model_dir:
        yield difference("SavedModel", _logits_of_saved_model(saved_model_dir, examples))
    if hf_dir and all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        yield difference("Hugging Face", _logits_of_hugging_face(hf_dir, examples))


def _logits_of_network(network: Network, examples: PaddedExamples) -> Logits:
    outputs = network.run(*examples)
    return Logits(outputs.masked_lm_logits, outputs.next_sentence_logits)


def _logits_of_saved_model(folder: str, examples: PaddedExamples) -> Logits:
    with plain_name(folder) as plain:
        loaded = tf.saved_model.load(plain)  # it owns the variables, and the signature does not keep it alive
    outputs = loaded.signatures["fill_mask"](**dict(zip(INPUTS, map(tf.constant, examples))))
    return Logits(outputs["logits"].numpy(), outputs["next_sentence_logits"].numpy())


def _logits_of_hugging_face(folder: str, examples: PaddedExamples) -> Logits:
    import torch
    from transformers import BertForPreTraining
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with plain_name(folder) as plain:
        network = BertForPreTraining.from_pretrained(plain).eval()
    inputs = [torch.tensor(array, dtype=torch.long) for array in examples]
    with torch.no_grad():
        outputs = network(input_ids=inputs[0], attention_mask=inputs[1], token_type_ids=inputs[2])
    return Logits(outputs.prediction_logits.numpy(), outputs.seq_relationship_logits.numpy())


def _largest_difference(expected: Logits, found: Logits, is_token: np.ndarray) -> float:
    """Over all logits but those of padding; is_token: [E, S] bool."""
    return float(
        max(
            np.abs(expected.masked_lm - found.masked_lm)[is_token].max(),
            np.abs(expected.next_sentence - found.next_sentence).max(),
        )
    )
