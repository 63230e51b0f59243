"""A step of scripts/pretrain_text.sh: python -m bert_pretrain.pretrain_text STEP FOLDER_OF_TEXT OUT [flags].

Use the script: bash scripts/pretrain_text.sh FOLDER_OF_TEXT OUT [--from=HF_FOLDER] [--hours=H] [flags]. It takes these
flags; all of them have a value that is chosen and printed before training starts.
"""

from __future__ import annotations

import os
import re
import sys

from bert_pretrain import cli
from bert_pretrain.pretrain_text import flags, steps
from bert_pretrain.pretrain_text.folder import Folder

_STEPS = {"begin": steps.begin, "choose": steps.choose, "plan": steps.plan}


def _run(arguments: list[str]) -> int:
    given = flags.read_script_flags()
    if len(arguments) != 3 or arguments[0] not in _STEPS:
        found = " ".join(arguments[1:]) or "none"
        raise ValueError(f"expected a folder of text and a folder for the model, got {found}; --help lists the flags")
    step, source, output = arguments
    for line in _STEPS[step](os.path.expanduser(source), Folder(os.path.expanduser(output)), given):
        print(line, flush=True)
    return 0


def main() -> None:
    """The command: parses the flags, runs and exits."""
    sys.argv[1:] = [re.sub(r"^--?from(?==|$)", "--init_checkpoint", argument) for argument in sys.argv[1:]]
    cli.define(*flags.PARTS)
    cli.main(_run, __doc__, takes_arguments=True)


if __name__ == "__main__":
    main()
