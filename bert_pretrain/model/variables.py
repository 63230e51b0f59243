"""The network's variables: names and shapes of the published TF1 checkpoints, and initial values.

The names are a contract: Google's bert_model.ckpt and MLPerf's model.ckpt-28252 hold exactly these
(google-research/bert modeling.py and run_pretraining.py).
"""

from __future__ import annotations

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.tensorflow_compat import graph_variables
from bert_pretrain.tensorflow_compat.graph_variables import Spec
from bert_pretrain.tensorflow_compat.typed import Shape


def variable_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Variable name -> shape, in the order of creation; 398 variables for BERT-large."""
    hidden = config.hidden_size
    table: dict[str, Shape] = {
        "bert/embeddings/word_embeddings": (config.vocab_size, hidden),
        "bert/embeddings/token_type_embeddings": (config.type_vocab_size, hidden),
        "bert/embeddings/position_embeddings": (config.max_position_embeddings, hidden),
        **_layer_norm("bert/embeddings/LayerNorm", hidden),
    }
    for layer in range(config.num_hidden_layers):
        table.update(_encoder_layer(f"bert/encoder/layer_{layer}", config))
    table.update(_dense("bert/pooler/dense", hidden, hidden))
    table.update(_dense("cls/predictions/transform/dense", hidden, hidden))
    table.update(_layer_norm("cls/predictions/transform/LayerNorm", hidden))
    table["cls/predictions/output_bias"] = (config.vocab_size,)
    table["cls/seq_relationship/output_weights"] = (2, hidden)
    table["cls/seq_relationship/output_bias"] = (2,)
    return table


def create_variables(config: ModelConfig, seed: int) -> dict[str, tf.Variable]:
    """Creates every variable in the default graph, float32.

    Initial values are those of google-research/bert modeling.py (create_initializer): kernels and embeddings from a
    normal distribution with standard deviation initializer_range, truncated at two standard deviations; gamma one;
    beta and biases zero. The values depend only on seed and variable.
    """
    return graph_variables.create_in_graph(
        {
            name: _spec(name, shape, config, seed + 1_000_003 * number)
            for number, (name, shape) in enumerate(variable_shapes(config).items())
        }
    )


def num_parameters(config: ModelConfig) -> int:
    """The number of elements of all variables together; 336,226,108 for BERT-large."""
    return sum(tf.TensorShape(shape).num_elements() for shape in variable_shapes(config).values())


def _spec(name: str, shape: Shape, config: ModelConfig, seed: int) -> Spec:
    if name.endswith("gamma"):
        return Spec(shape, initial=1.0, trainable=True)
    if name.endswith(("beta", "bias")):
        return Spec(shape, trainable=True)
    return Spec(shape, deviation=config.initializer_range, seed=seed % 2**31, trainable=True)


def _encoder_layer(prefix: str, config: ModelConfig) -> dict[str, Shape]:
    hidden, intermediate = config.hidden_size, config.intermediate_size
    return {
        **_dense(f"{prefix}/attention/self/query", hidden, hidden),
        **_dense(f"{prefix}/attention/self/key", hidden, hidden),
        **_dense(f"{prefix}/attention/self/value", hidden, hidden),
        **_dense(f"{prefix}/attention/output/dense", hidden, hidden),
        **_layer_norm(f"{prefix}/attention/output/LayerNorm", hidden),
        **_dense(f"{prefix}/intermediate/dense", hidden, intermediate),
        **_dense(f"{prefix}/output/dense", intermediate, hidden),
        **_layer_norm(f"{prefix}/output/LayerNorm", hidden),
    }


def _dense(prefix: str, num_inputs: int, num_outputs: int) -> dict[str, Shape]:
    return {f"{prefix}/kernel": (num_inputs, num_outputs), f"{prefix}/bias": (num_outputs,)}


def _layer_norm(prefix: str, width: int) -> dict[str, Shape]:
    return {f"{prefix}/beta": (width,), f"{prefix}/gamma": (width,)}
