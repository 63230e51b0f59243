"""The kernels, and the optimizers' updates, as C++ operations for CPUs (bert_pretrain/kernels/native)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from bert_pretrain.config.model import LAYER_NORM_EPSILON
from bert_pretrain.kernels import native
from bert_pretrain.kernels.dropout import NUM_HASHES, num_dropped
from bert_pretrain.kernels.unpadding import Tokens, find_tokens
from bert_pretrain.tensorflow_compat.typed import TensorAndGradient, custom_gradient


class NativeKernels:
    """See Kernels. Tensors are float32; bits are keys."""

    is_compiled = compiles_layers = False  # for each shape

    def __init__(self) -> None:
        self._library = native.library()

    def find_tokens(self, example_ids: tf.Tensor) -> Tokens:
        return find_tokens(example_ids)

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        @custom_gradient
        def kernel(inputs: tf.Tensor) -> TensorAndGradient:
            outputs = self._library.bert_pretrain_gelu(inputs=inputs)
            return outputs, lambda grad: self._library.bert_pretrain_gelu_grad(inputs=inputs, grad_outputs=grad)

        return kernel(inputs)

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        if bits is None:
            return inputs

        @custom_gradient
        def kernel(inputs: tf.Tensor) -> TensorAndGradient:
            outputs = self._library.bert_pretrain_dropout(inputs=inputs, **_mask(bits, rate))
            return outputs, lambda grad: self._library.bert_pretrain_dropout(inputs=grad, **_mask(bits, rate))

        return kernel(inputs)

    def layer_norm(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        return self.add_and_norm(inputs, None, gamma, beta, None, 0.0)

    def add_and_norm(
        self,
        inputs: tf.Tensor,
        residual: Optional[tf.Tensor],
        gamma: tf.Tensor,
        beta: tf.Tensor,
        bits: Optional[tf.Tensor],
        rate: float,
    ) -> tf.Tensor:
        mask = _mask(bits, rate)

        @custom_gradient
        def kernel(gamma: tf.Tensor, beta: tf.Tensor, inputs: tf.Tensor, *residual: tf.Tensor) -> TensorAndGradient:
            outputs, total, mean, rstd = self._library.bert_pretrain_add_and_norm(
                inputs=inputs,
                residual=residual[0] if residual else tf.zeros([]),
                gamma=gamma,
                beta=beta,
                epsilon=LAYER_NORM_EPSILON,
                **mask,
            )

            def gradient(grad_outputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
                grad = self._library.bert_pretrain_add_and_norm_grad(
                    total=total, mean=mean, rstd=rstd, gamma=gamma, grad_outputs=grad_outputs, **mask
                )
                return (grad.grad_gamma, grad.grad_beta, grad.grad_inputs, grad.grad_residual)[: 3 + len(residual)]

            return outputs, gradient

        return kernel(gamma, beta, inputs, *(() if residual is None else (residual,)))

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        def attend(qkv: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
            common = {
                "slots": tokens.slots,
                "example_ids": example_ids,
                "num_heads": num_heads,
                **_mask(bits, rate),
            }

            @custom_gradient
            def kernel(qkv: tf.Tensor) -> TensorAndGradient:
                context, log_sums = self._library.bert_pretrain_attention(qkv=qkv, **common)

                def gradient(grad_context: tf.Tensor) -> tf.Tensor:
                    return self._library.bert_pretrain_attention_grad(
                        qkv=qkv, context=context, log_sums=log_sums, grad_context=grad_context, **common
                    )

                return context, gradient

            return kernel(qkv)

        return attend


def _mask(bits: Optional[tf.Tensor], rate: float) -> dict[str, Any]:
    """The arguments from which an operation makes its dropout mask."""
    if bits is None:
        return {"key": tf.zeros([2], tf.uint32), "num_dropped": 0}
    assert bits.dtype == tf.uint32, "native operations hash their masks"
    return {"key": bits, "num_dropped": num_dropped(rate, NUM_HASHES)}


def update_in_place(
    operation: str,
    variables: Sequence[tf.Variable],
    gradient: tf.Tensor,
    gradient_scale: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    beta_1: float,
    beta_2: float,
    **more: Any,
) -> tf.Operation:
    """Runs bert_pretrain_lamb or bert_pretrain_adamw on variables: the weight and its moments m and v.

    more: the operation's further inputs and attributes.
    """
    weight, m, v = (variable.handle for variable in variables)
    return getattr(native.library(), operation)(
        weight=weight,
        m=m,
        v=v,
        gradient=gradient,
        gradient_scale=gradient_scale,
        learning_rate=learning_rate,
        beta_1=beta_1,
        one_minus_beta_1=1.0 - beta_1,  # in float64; computed in float32 it would be off in the fifth digit
        beta_2=beta_2,
        one_minus_beta_2=1.0 - beta_2,
        **more,
    )
