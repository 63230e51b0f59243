"""The work between the matrix products, whoever does it."""

from __future__ import annotations

from typing import Callable, Optional, Protocol

import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.kernels.native_kernels import NativeKernels
from bert_pretrain.kernels.unpadding import Tokens


class Kernels(Protocol):
    """Letters: T tokens, H hidden, N heads, R rows, S slots a row. bits come from Dropout.bits; None drops nothing."""

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        """The tanh form of GELU (Hendrycks & Gimpel 2016), elementwise."""

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        """Any shape -> the same with about rate of its units zero and the others divided by 1 - rate."""

    def layer_norm(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        """[T, H] -> [T, H] with mean 0 and variance 1 along H, then times gamma [H] plus beta [H]."""

    def add_and_norm(
        self,
        inputs: tf.Tensor,
        residual: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        bits: Optional[tf.Tensor],
        rate: float,
    ) -> tf.Tensor:
        """layer_norm(residual + dropout(inputs)), all [T, H]."""

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        """Multi-head attention of the tokens of rows with these example_ids [R, S], within each example.

        What it returns makes of query, key and value side by side, [T, 3H], the context [T, H]; its bits are for
        probabilities [R, N, S, S], of which rate are dropped. Padding has no gradient and gets a context that nobody
        may look at.
        """


def kernels_of(backend: Backend) -> Kernels:
    """The kernels of a backend."""
    return NativeKernels() if backend is Backend.NATIVE else GraphKernels(compiled=backend is Backend.XLA)
