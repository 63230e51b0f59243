"""C++ operations for CPUs: attention without padding, layer norm, GELU, dropout, and the optimizers' updates.

sources/ holds the code, build.py compiles it for this machine, and library() returns the operations.
"""

from bert_pretrain.kernels.native.build import library
from bert_pretrain.system.native_library import UnavailableError, cpu_instructions

__all__ = ["UnavailableError", "cpu_instructions", "library"]
