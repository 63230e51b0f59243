"""python -m bert_pretrain.kernels.native: compiles the operations for this machine before the first run."""

import sys

from bert_pretrain.kernels.native import UnavailableError, library
from bert_pretrain.system import streams

if __name__ == "__main__":
    streams.secure_streams()
    try:
        library()
    except UnavailableError as reason:
        print(f"no native kernels: {reason}; runs on this machine use XLA, which is slower", file=sys.stderr)
