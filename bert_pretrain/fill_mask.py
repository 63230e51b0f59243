"""Asks a model for masked words: python -m bert_pretrain.fill_mask MODEL "Paris is the [MASK] of France."

MODEL is a Hugging Face folder, the output_dir of a run, or the prefix of a TF1 checkpoint; a path or a URL. With
--next_sentence, two texts follow MODEL.
"""

from __future__ import annotations

import os

from bert_pretrain import cli
from bert_pretrain.config.export import FillMaskConfig
from bert_pretrain.storage import local_copies
from bert_pretrain.system import streams
from bert_pretrain.tensorflow_compat import tensorflow_import


def _run(arguments: list[str]) -> int:
    config = cli.read_settings(FillMaskConfig)
    config.check()
    num_texts = 0 if config.held_out_shards else 2 if config.next_sentence else 1
    if len(arguments) != 1 + num_texts:
        raise ValueError(
            f"expected MODEL and {num_texts} quoted texts, got {len(arguments)} arguments; --help shows an example"
        )
    # TensorFlow is imported late: --help and invalid flags are answered at once.
    with tensorflow_import.imported_quickly():
        from bert_pretrain.inference import answers

    config, model = (
        local_copies.localize_settings(config),
        local_copies.local_path("MODEL", os.path.expanduser(arguments[0])),
    )
    for line in answers.answer_lines(config, model, arguments[1:]):
        streams.print_answer(line)
    return 0


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define_flags(FillMaskConfig)
    cli.run_command(_run, __doc__, takes_arguments=True)


if __name__ == "__main__":
    main()
