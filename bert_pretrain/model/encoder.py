"""Token ids to hidden states: embeddings and the post-LN transformer of BERT (Devlin et al. 2018, arXiv:1810.04805).

Letters: R rows, S slots per row, T unpadded tokens, H hidden, I intermediate, N heads. A row may hold several examples;
a token sees only the tokens of its own example. Layers compute tokens without padding (kernels/unpadding.py).
"""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.kernels import xla
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import Kernels
from bert_pretrain.kernels.unpadding import Tokens, take_rows
from bert_pretrain.model.layers import FLOAT32, Precision, Weights, dense, fused_dense, layer_norm
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient


class Rows(NamedTuple):
    """The inputs of the encoder, each [R, S] int32."""

    token_ids: tf.Tensor
    segment_ids: tf.Tensor
    position_ids: tf.Tensor  # from 0 at each example's first token
    example_ids: tf.Tensor  # 1, 2, ... within the row; 0 is padding


class Encoder(NamedTuple):
    """What all layers of one forward pass share."""

    config: ModelConfig
    kernels: Kernels
    products: tf.DType  # of the linear layers
    tokens: Tokens
    example_ids: tf.Tensor  # [R, S] int32, of Rows
    attend: Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]  # (qkv [T, 3H], bits) -> context [T, H]


class Sequence(NamedTuple):
    """The output of the encoder."""

    hidden: tf.Tensor  # [T, H], or [X, H] of the X output slots
    tokens: Tokens
    indices: tf.Tensor  # [R * S] int32: the row of `hidden` of each slot; -1 for what is no output slot

    def gather(self, slots: tf.Tensor) -> tf.Tensor:
        """The hidden states [Y, H] in these slots [Y], none of which may be padding."""
        return take_rows(self.hidden, tf.gather(self.indices, slots))


class LayerBits(NamedTuple):
    """Random bits for the dropout masks of a layer; None without dropout."""

    attention: Optional[tf.Tensor]  # for the probabilities [R, N, S, S]
    attention_output: Optional[tf.Tensor]  # [T, H], in the last layer [X, H]
    output: Optional[tf.Tensor]  # the same


def encode(
    weights: Weights,
    rows: Rows,
    config: ModelConfig,
    kernels: Kernels,
    dropout: Optional[Dropout] = None,
    precision: Precision = FLOAT32,
    recompute: bool = False,
    output_slots: Optional[tf.Tensor] = None,
) -> Sequence:
    """Returns the hidden states of the last layer, in precision.activations.

    dropout None means no dropout, as in evaluation. With recompute, each layer keeps only its input, and the backward
    pass runs it again. output_slots: the slots [X] int32, none of them padding, that the heads read; the last
    layer then computes only these after its attention. None: all tokens.
    """
    encoder = _make_encoder(config, kernels, precision.products, rows.example_ids)
    tokens = encoder.tokens
    num_outputs = tf.size(tokens.slots if output_slots is None else output_slots)
    embedding_bits, *layers_bits = _draw_bits(dropout, config, rows, tf.size(tokens.slots), num_outputs)
    hidden = tf.cast(_embed(encoder, weights, rows, embedding_bits), precision.activations)  # [T, H]
    for number in range(config.num_hidden_layers):
        prefix = f"bert/encoder/layer_{number}/"
        own = {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}
        bits = LayerBits(*layers_bits[3 * number : 3 * number + 3])
        is_last = number == config.num_hidden_layers - 1
        output_tokens = tf.gather(tokens.indices, output_slots) if is_last and output_slots is not None else None
        layer = functools.partial(_run_layer, encoder, bits=bits, output_tokens=output_tokens)
        hidden = _run_with_recompute(layer, own, hidden) if recompute else layer(own, hidden)
    return Sequence(
        hidden, tokens, tokens.indices if output_slots is None else _positions(output_slots, tokens.indices)
    )


def _positions(output_slots: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[R * S] int32: the position in `output_slots` of each slot, -1 for the others."""
    return tf.tensor_scatter_nd_update(
        tf.fill(tf.shape(like), -1), output_slots[:, None], tf.range(tf.size(output_slots))
    )


def _make_encoder(config: ModelConfig, kernels: Kernels, products: tf.DType, example_ids: tf.Tensor) -> Encoder:
    tokens = kernels.find_tokens(example_ids)
    attend = kernels.attention(example_ids, tokens, config.num_attention_heads, config.attention_probs_dropout_prob)
    return Encoder(config, kernels, products, tokens, example_ids, attend)


def _draw_bits(
    dropout: Optional[Dropout], config: ModelConfig, rows: Rows, num_tokens: tf.Tensor, num_outputs: tf.Tensor
) -> list[Optional[tf.Tensor]]:
    """The bits of the embeddings [T, H], then those of each layer, in the order of LayerBits.

    num_tokens: those that the layers compute; num_outputs: those that the last one computes after its attention.
    """
    num_rows, width = tf.unstack(tf.shape(rows.example_ids))
    probabilities = tf.stack([num_rows, config.num_attention_heads, width, width])
    hidden, last = (tf.stack([number, config.hidden_size]) for number in (num_tokens, num_outputs))
    outputs = [hidden] * (config.num_hidden_layers - 1) + [last]
    layers = [(probabilities, output, output) for output in outputs]
    rates = config.attention_probs_dropout_prob, config.hidden_dropout_prob, config.hidden_dropout_prob
    places = [(hidden, config.hidden_dropout_prob), *(place for shapes in layers for place in zip(shapes, rates))]
    if dropout is None:
        return [None] * len(places)
    drawn = iter(dropout.draw([shape for shape, rate in places if rate]))
    return [next(drawn) if rate else None for _, rate in places]


def _embed(encoder: Encoder, weights: Weights, rows: Rows, bits: Optional[tf.Tensor]) -> tf.Tensor:
    """The sum of word, segment and position embeddings with layer norm and dropout, [T, H] float32."""
    config = encoder.config
    token_ids, segment_ids, position_ids = (
        tf.gather(tf.reshape(ids, [-1]), encoder.tokens.slots) for ids in rows[:3]
    )  # [T] each
    words = tf.gather(weights["bert/embeddings/word_embeddings"], token_ids)  # [T, H]
    # With two segments, a matrix product is cheaper than the gradient of a gather, a scatter-add into two rows.
    one_hot = tf.one_hot(segment_ids, config.type_vocab_size)  # [T, segments]
    segments = tf.matmul(one_hot, weights["bert/embeddings/token_type_embeddings"])  # [T, H]
    positions = tf.gather(weights["bert/embeddings/position_embeddings"], position_ids)  # [T, H]
    hidden = layer_norm(weights, "bert/embeddings/LayerNorm", words + segments + positions, encoder.kernels)
    return encoder.kernels.dropout(hidden, bits, config.hidden_dropout_prob)


def _run_layer(
    encoder: Encoder, weights: Weights, hidden: tf.Tensor, bits: LayerBits, output_tokens: Optional[tf.Tensor]
) -> tf.Tensor:
    """See _layer; as one program, which all layers share, where the kernels compile layers."""
    if not encoder.kernels.compiles_layers:
        return _layer(encoder, weights, hidden, bits, output_tokens)
    run = xla.function_runner(compiled=True)
    tensors = hidden, encoder.example_ids, output_tokens, *bits, *weights.values()
    shared = {"config": encoder.config, "kernels": encoder.kernels, "products": encoder.products}
    return run(_layer_program, *tensors, names=tuple(weights), **shared)


def _layer_program(
    hidden: tf.Tensor,
    example_ids: tf.Tensor,
    output_tokens: Optional[tf.Tensor],
    *bits_and_weights: Optional[tf.Tensor],
    names: tuple[str, ...],
    config: ModelConfig,
    kernels: Kernels,
    products: tf.DType,
) -> tf.Tensor:
    """_layer as a function of tensors. names: of the weights."""
    bits, values = bits_and_weights[: -len(names)], bits_and_weights[-len(names) :]
    weights = {name: value for name, value in zip(names, values) if value is not None}
    encoder = _make_encoder(config, kernels, products, example_ids)
    return _layer(encoder, weights, hidden, LayerBits(*bits), output_tokens)


def _layer(
    encoder: Encoder,
    weights: Weights,
    hidden: tf.Tensor,
    bits: LayerBits,
    output_tokens: Optional[tf.Tensor],
) -> tf.Tensor:
    """hidden [T, H] -> [T, H]: attention and feed-forward, each followed by dropout, residual and layer norm.

    weights: by their names within the layer. With output_tokens [X], places in T, the result is theirs alone, [X, H].
    """
    context = _attend(encoder, "attention/self", weights, hidden, bits.attention)
    if output_tokens is not None:
        context, hidden = take_rows(context, output_tokens), take_rows(hidden, output_tokens)
    output = dense(weights, "attention/output/dense", context, encoder.products)
    hidden = _add_and_norm(encoder, "attention/output/LayerNorm", weights, output, hidden, bits.attention_output)
    intermediate = dense(weights, "intermediate/dense", hidden, encoder.products)  # [T, I]
    output = dense(weights, "output/dense", encoder.kernels.gelu(intermediate), encoder.products)
    return _add_and_norm(encoder, "output/LayerNorm", weights, output, hidden, bits.output)


def _attend(encoder: Encoder, name: str, weights: Weights, hidden: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
    """Multi-head attention within each example: hidden [T, H] -> [T, H]."""
    names = [f"{name}/{part}" for part in ("query", "key", "value")]
    qkv = fused_dense(weights, names, hidden, encoder.products)  # [T, 3H]
    return encoder.attend(qkv, bits)


def _add_and_norm(
    encoder: Encoder,
    name: str,
    weights: Weights,
    inputs: tf.Tensor,
    residual: tf.Tensor,
    bits: Optional[tf.Tensor],
) -> tf.Tensor:
    gamma, beta = weights[f"{name}/gamma"], weights[f"{name}/beta"]
    return encoder.kernels.add_and_norm(inputs, residual, gamma, beta, bits, encoder.config.hidden_dropout_prob)


def _run_with_recompute(
    layer: Callable[[Weights, tf.Tensor], tf.Tensor], weights: Weights, hidden: tf.Tensor
) -> tf.Tensor:
    """layer(weights, hidden), which keeps none of its intermediate results for the backward pass and runs again in it.

    Chen et al. 2016, arXiv:1604.06174. It adds about a third to the work of the layers.
    """
    names = list(weights)

    @custom_gradient
    def kernel(hidden: tf.Tensor, *values: tf.Tensor) -> TensorAndGradient:
        def gradient(grad_output: tf.Tensor) -> list[tf.Tensor]:
            # Without this dependency, TensorFlow would merge the second run with the first and keep its results.
            with tf.control_dependencies([grad_output]):
                inputs = [tf.identity(value) for value in (hidden, *values)]
            output = layer(dict(zip(names, inputs[1:])), inputs[0])
            return tf.gradients(output, inputs, grad_output)

        return layer(dict(zip(names, values)), hidden), gradient

    return kernel(hidden, *weights.values())
