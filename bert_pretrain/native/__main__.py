"""`python -m bert_pretrain.native`: compiles the operations for this machine, so that the first run need not."""

import sys

from bert_pretrain.native.build import UnavailableError, library

if __name__ == "__main__":
    try:
        library()
    except UnavailableError as reason:
        print(f"no native operations: {reason}; runs take XLA's on this machine, which are slower", file=sys.stderr)
