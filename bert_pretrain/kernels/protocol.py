"""The interface of the kernels, the operations between the matrix products, and how to get those of a backend."""

from __future__ import annotations

import functools
from typing import Callable, Optional, Protocol

import tensorflow as tf

from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.graph_kernels import GraphKernels
from bert_pretrain.kernels.native_kernels import NativeKernels
from bert_pretrain.kernels.unpadding import Tokens


class Kernels(Protocol):
    """Letters: T tokens, H hidden, N heads, R rows, S slots per row. bits: from Dropout.bits; None: no dropout."""

    is_compiled: bool  # for each shape of the tensors, so that these should be few
    compiles_layers: bool  # so that a layer should be a single program

    def find_tokens(self, example_ids: tf.Tensor) -> Tokens:
        """The slots that the layers compute, of rows with these example_ids [R, S] int32, where 0 is padding."""
        ...

    def gelu(self, inputs: tf.Tensor) -> tf.Tensor:
        """The tanh form of GELU, elementwise (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2)."""
        ...

    def dropout(self, inputs: tf.Tensor, bits: Optional[tf.Tensor], rate: float) -> tf.Tensor:
        """Sets about rate of the units of inputs, of any shape, to zero and divides the others by 1 - rate."""
        ...

    def layer_norm(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        """Layer norm along H (Ba et al. 2016, arXiv:1607.06450): [T, H], gamma [H], beta [H] -> [T, H]."""
        ...

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
        ...

    def attention(
        self, example_ids: tf.Tensor, tokens: Tokens, num_heads: int, rate: float
    ) -> Callable[[tf.Tensor, Optional[tf.Tensor]], tf.Tensor]:
        """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) within each example of rows [R, S].

        Returns attend(qkv [T, 3H], bits) -> context [T, H]. qkv holds query, key and value side by side. bits drop
        the attention probabilities [R, N, S, S] at this rate. The context of padding is undefined, and padding
        receives zero gradient.
        """
        ...


@functools.lru_cache(maxsize=None)
def make_kernels(backend: Backend) -> Kernels:
    """Returns the kernels of the backend. UnavailableError when the native ones cannot be compiled or loaded."""
    return NativeKernels() if backend is Backend.NATIVE else GraphKernels(backend)
