"""Writes a SavedModel with the signature of TensorFlow Hub's text encoders, and one for masked words.

https://www.tensorflow.org/hub/common_saved_model_apis/text names inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.model import padded
from bert_pretrain.system.files import plain_name

INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
_SPECS = {name: tf.TensorSpec([None, None], tf.int32, name=name) for name in INPUTS}


class _Encoder(tf.Module):
    """The network on variables of its own, named as in TF1 checkpoints."""

    def __init__(self, config: ModelConfig, values: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self._config = config
        # Slashes are no attribute names; the variables keep their own.
        self.weights = {
            name.replace("/", "."): tf.Variable(tf.convert_to_tensor(value), name=name, trainable=False)
            for name, value in values.items()
        }

    def _run(self, word_ids: tf.Tensor, mask: tf.Tensor, type_ids: tf.Tensor) -> padded.OutputTensors:
        weights = {name.replace(".", "/"): tf.convert_to_tensor(weight) for name, weight in self.weights.items()}
        return padded.encode_padded(weights, word_ids, mask, type_ids, self._config)

    @tf.function(input_signature=[_SPECS])
    def __call__(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What TensorFlow Hub calls: a dictionary of the three inputs."""
        outputs = self._run(*(inputs[name] for name in INPUTS))
        return {
            "sequence_output": outputs.sequence_output,
            "pooled_output": outputs.pooled_output,
            "default": outputs.pooled_output,
        }

    @tf.function(input_signature=list(_SPECS.values()))
    def encode(
        self, input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return self({"input_word_ids": input_word_ids, "input_mask": input_mask, "input_type_ids": input_type_ids})

    @tf.function(input_signature=list(_SPECS.values()))
    def fill_mask(
        self, input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = self._run(input_word_ids, input_mask, input_type_ids)
        return {"logits": outputs.masked_lm_logits, "next_sentence_logits": outputs.next_sentence_logits}


def write_saved_model(folder: str, config: ModelConfig, values: Mapping[str, np.ndarray]) -> None:
    """Writes signatures serving_default and fill_mask into an existing folder. values: variable -> float32."""
    assert tf.executing_eagerly(), "a SavedModel is written outside of graphs"
    encoder = _Encoder(config, values)
    signatures = {"serving_default": encoder.encode, "fill_mask": encoder.fill_mask}
    with plain_name(folder) as plain:
        tf.saved_model.save(encoder, plain, signatures=signatures)
