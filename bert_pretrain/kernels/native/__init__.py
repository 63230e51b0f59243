"""C++ operations for CPUs: attention without padding, layer norm, GELU, dropout, and the optimizers' updates.

sources/ holds the code. library() compiles it for this machine and this TensorFlow, once, and loads it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import tensorflow as tf

from bert_pretrain.system import files
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError, cpu_instructions
from bert_pretrain.tensorflow_compat import compat

__all__ = ["Operations", "UnavailableError", "cpu_instructions", "library"]

_SOURCES = Path(__file__).parent / "sources"


# What operations return. At run time, TensorFlow makes classes of its own with these fields.


class AddAndNormResults(NamedTuple):
    """See BertPretrainAddAndNorm in norm.cc."""

    outputs: tf.Tensor
    total: tf.Tensor
    mean: tf.Tensor
    rstd: tf.Tensor


class AddAndNormGradients(NamedTuple):
    """See BertPretrainAddAndNormGrad in norm.cc."""

    grad_inputs: tf.Tensor
    grad_residual: tf.Tensor
    grad_gamma: tf.Tensor
    grad_beta: tf.Tensor


class AttentionResults(NamedTuple):
    """See BertPretrainAttention in attention.cc."""

    context: tf.Tensor
    log_sums: tf.Tensor


class AddFixedResults(NamedTuple):
    """See BertPretrainAddFixed in fixed_point.cc."""

    sums: tf.Tensor
    refused: tf.Tensor


class Operations(Protocol):
    """The operations as functions; REGISTER_OP in sources/ says what each takes and returns.

    Those of the optimizers are missing here: native_kernels.update_in_place calls them by name.
    """

    def bert_pretrain_gelu(self, *, inputs: tf.Tensor) -> tf.Tensor: ...

    def bert_pretrain_gelu_grad(self, *, inputs: tf.Tensor, grad_outputs: tf.Tensor) -> tf.Tensor: ...

    def bert_pretrain_dropout(self, *, inputs: tf.Tensor, key: tf.Tensor, num_dropped: int) -> tf.Tensor: ...

    def bert_pretrain_add_and_norm(
        self,
        *,
        inputs: tf.Tensor,
        residual: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        key: tf.Tensor,
        num_dropped: int,
        epsilon: float,
    ) -> AddAndNormResults: ...

    def bert_pretrain_add_and_norm_grad(
        self,
        *,
        total: tf.Tensor,
        mean: tf.Tensor,
        rstd: tf.Tensor,
        gamma: tf.Tensor,
        grad_outputs: tf.Tensor,
        key: tf.Tensor,
        num_dropped: int,
    ) -> AddAndNormGradients: ...

    def bert_pretrain_attention(
        self,
        *,
        qkv: tf.Tensor,
        slots: tf.Tensor,
        example_ids: tf.Tensor,
        key: tf.Tensor,
        num_heads: int,
        num_dropped: int,
    ) -> AttentionResults: ...

    def bert_pretrain_attention_grad(
        self,
        *,
        qkv: tf.Tensor,
        slots: tf.Tensor,
        example_ids: tf.Tensor,
        key: tf.Tensor,
        context: tf.Tensor,
        log_sums: tf.Tensor,
        grad_context: tf.Tensor,
        num_heads: int,
        num_dropped: int,
    ) -> tf.Tensor: ...

    def bert_pretrain_add_fixed(
        self, *, totals: tf.Tensor, values: tf.Tensor, factor: tf.Tensor, limit: float
    ) -> AddFixedResults: ...

    def bert_pretrain_keep_snapshot(self, variables: Sequence[tf.Tensor], *, key: int) -> tf.Operation: ...

    def bert_pretrain_take_snapshot(self, *, types: Sequence[tf.DType], key: int) -> list[tf.Tensor]: ...


@functools.lru_cache(maxsize=None)
def library() -> Operations:
    """The operations as Python functions; compiles them first if this machine has not done so (half a minute).

    UnavailableError without a compiler (unless a library for this machine is in the cache), when the compiler fails, or
    when neither the cache folder nor one among the temporary files can be used.
    """
    operations = NativeLibrary(
        "operations",
        sorted(_SOURCES.iterdir()),
        [tf.__version__],
        compat.compile_flags(),
        tf.sysconfig.get_link_flags(),
        "Compiling kernels for this CPU, once (about half a minute)",
    )
    path = operations.compiled(files.cache_directory("kernels"))
    try:
        with files.plain_name(str(path)) as plain:
            return tf.load_op_library(plain)
    except (tf.errors.OpError, OSError) as error:
        raise UnavailableError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
