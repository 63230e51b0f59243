"""Operations in C++ for CPUs: attention without padding, norms, GELU, the optimizers, in as few passes as they need.

sources/ holds them, build.py compiles them for the machine at hand, and library() is the way in.
"""

from bert_pretrain.kernels.native.build import UnavailableError, library

__all__ = ["UnavailableError", "library"]
