"""C++ operations for CPUs: attention without padding, layer norm, GELU, dropout, and the optimizers' updates.

sources/ holds the code. library() compiles it for this machine and this TensorFlow, once, and loads it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

import tensorflow as tf

from bert_pretrain.system import files
from bert_pretrain.system.native_library import NativeLibrary, UnavailableError, cpu_instructions
from bert_pretrain.tensorflow_compat import compat

__all__ = ["UnavailableError", "cpu_instructions", "library"]

_SOURCES = Path(__file__).parent / "sources"


@functools.lru_cache(maxsize=None)
def library() -> ModuleType:
    """The operations as Python functions; compiles them first if this machine has not done so (half a minute).

    UnavailableError without a compiler (unless a library for this machine is in the cache), when the compiler fails, or
    when the cache folder cannot be written to.
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
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, OSError) as error:
        raise UnavailableError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from None
