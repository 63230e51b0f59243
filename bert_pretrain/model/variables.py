"""The network's variables: names and shapes of the published TF1 checkpoints, and initial values.

The names are a contract: Google's bert_model.ckpt and MLPerf's model.ckpt-28252 hold exactly these
(google-research/bert modeling.py and run_pretraining.py).
"""

from __future__ import annotations

import numpy as np
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


_TRUNCATED_VARIANCE = 0.774  # of a standard normal distribution that is cut at two standard deviations
# Of informed_values; docs/recipes.md has the measurements behind them.
_INFORMED_LAYERS = 2
_POSITION_SHARE = 0.25  # of the variance of the embeddings' sum
_PEAK_SCORE = 8.0  # of a head's token of choice; tokens elsewhere have scores around 0


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


def informed_values(config: ModelConfig, token_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Initial values that know what is the same for every text: words have frequencies and neighbours; float32.

    token_counts [V]: how often each token is predicted in a sample of the training records. The output bias is the
    logarithm of a token's frequency, counted once more than it occurs, relative to equal frequencies.

    In each of the first two layers head h attends to one neighbour: heads 0, 1, 2, 3, ... to the token that is 1
    before, 1 after, 2 before, 2 after, ... Position p is D/2 rotating pairs (cos f p, sin f p), the first coordinates
    of its embedding, where D is the size of a head. A key is these coordinates, and a query the same turned by f times
    the distance, so that a score is the sum of cos f (distance - wanted distance) over the frequencies f, which lie
    all over (0, pi): one peak. Heads with fixed patterns of this kind help where data are few (Raganato et al. 2020,
    arXiv:2002.10260); here they are only where training starts from.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = hidden // heads
    pairs = np.arange(size // 2)
    # The golden ratio shifts the frequencies from equal distances, at which the peak would come back after D tokens.
    frequencies = np.pi * (pairs + pairs * (np.sqrt(5) - 1) / 2 % 1) / max(1, len(pairs))  # [D/2]
    # Words and token types, each a truncated normal distribution.
    others = 2 * _TRUNCATED_VARIANCE * hidden * config.initializer_range**2
    energy = others * _POSITION_SHARE / (1 - _POSITION_SHARE)  # of a position's embedding
    positions = np.zeros((config.max_position_embeddings, hidden))  # [positions, H]
    angles = np.arange(config.max_position_embeddings)[:, None] * frequencies
    scale = np.sqrt(energy / max(1, len(pairs)))
    positions[:, 0 : 2 * len(pairs) : 2] = scale * np.cos(angles)
    positions[:, 1 : 2 * len(pairs) : 2] = scale * np.sin(angles)
    # After layer normalization a position's coordinates have the energy H * _POSITION_SHARE.
    gain = np.sqrt(_PEAK_SCORE * np.sqrt(size) / (hidden * _POSITION_SHARE))
    query, key = np.zeros((hidden, hidden)), np.zeros((hidden, hidden))  # [H, heads * D]
    for head in range(heads):
        turn = frequencies * (head // 2 + 1) * (1 if head % 2 else -1)  # [D/2]
        even, odd = 2 * pairs, 2 * pairs + 1
        columns = head * size
        key[even, columns + even] = key[odd, columns + odd] = gain
        query[even, columns + even] = query[odd, columns + odd] = gain * np.cos(turn)
        query[even, columns + odd], query[odd, columns + even] = gain * np.sin(turn), -gain * np.sin(turn)
    bias = np.log((token_counts + 1.0) * len(token_counts) / (token_counts.sum() + len(token_counts)))
    values = {"bert/embeddings/position_embeddings": positions, "cls/predictions/output_bias": bias}
    for layer in range(min(_INFORMED_LAYERS, config.num_hidden_layers)):
        attention = f"bert/encoder/layer_{layer}/attention/self"
        values.update({f"{attention}/query/kernel": query, f"{attention}/key/kernel": key})
    return {name: value.astype(np.float32) for name, value in values.items()}


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
