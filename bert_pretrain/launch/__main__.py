"""python -m bert_pretrain.launch: starts one process per GPU; see launcher.py."""

import sys

from bert_pretrain.launch.launcher import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
