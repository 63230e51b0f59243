"""The kernels as operations in C++, for CPUs (bert_pretrain/kernels/native)."""

from __future__ import annotations

from typing import Any, Callable, Optional

import tensorflow as tf

from bert_pretrain.config.model import LAYER_NORM_EPSILON
from bert_pretrain.kernels import native
from bert_pretrain.kernels.dropout import HASHES, num_dropped
from bert_pretrain.kernels.unpadding import Tokens


class NativeKernels:
    """See Kernels. All float32; bits are keys of hashed masks."""

    def __init__(self) -> None:
        self._library = native.library()

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def kernel(inputs: tf.Tensor):
            outputs = self._library.bert_pretrain_gelu(inputs=inputs)
            return outputs, lambda upstream: self._library.bert_pretrain_gelu_gradient(inputs=inputs, upstream=upstream)

        return kernel(inputs)

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        if bits is None:
            return inputs

        @tf.custom_gradient
        def kernel(inputs: tf.Tensor):
            dropped = self._library.bert_pretrain_dropout(inputs=inputs, **_mask(bits, rate))
            return dropped, lambda upstream: self._library.bert_pretrain_dropout(inputs=upstream, **_mask(bits, rate))

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

        @tf.custom_gradient
        def kernel(gamma: tf.Tensor, beta: tf.Tensor, inputs: tf.Tensor, *residual: tf.Tensor):
            outputs, total, moments = self._library.bert_pretrain_add_norm(
                inputs=inputs,
                residual=residual[0] if residual else tf.zeros([]),
                gamma=gamma,
                beta=beta,
                epsilon=LAYER_NORM_EPSILON,
                **mask,
            )

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                to_inputs, to_residual, to_gamma, to_beta = self._library.bert_pretrain_add_norm_gradient(
                    total=total, moments=moments, gamma=gamma, upstream=upstream, **mask
                )
                return (to_gamma, to_beta, to_inputs, to_residual)[: 3 + len(residual)]

            return outputs, gradient

        return kernel(gamma, beta, inputs, *(() if residual is None else (residual,)))

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        def attend(projected: tf.Tensor, bits: Optional[tf.Tensor]) -> tf.Tensor:
            common = {
                "slots": tokens.slots,
                "example_ids": example_ids,
                "num_heads": num_heads,
                **_mask(bits, rate),
            }

            @tf.custom_gradient
            def kernel(projected: tf.Tensor):
                context, log_sums = self._library.bert_pretrain_attention(projected=projected, **common)

                def gradient(upstream: tf.Tensor) -> tf.Tensor:
                    return self._library.bert_pretrain_attention_gradient(
                        projected=projected, context=context, log_sums=log_sums, upstream=upstream, **common
                    )

                return context, gradient

            return kernel(projected)

        return attend


def _mask(bits: Optional[tf.Tensor], rate: float) -> dict[str, Any]:
    """What the operations make a mask from."""
    if bits is None:
        return {"key": tf.zeros([2], tf.uint32), "dropped": 0}
    assert bits.dtype == tf.uint32, "native operations hash their masks"
    return {"key": bits, "dropped": num_dropped(rate, HASHES)}
