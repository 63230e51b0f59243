"""The settings of `python -m bert_pretrain.make_data`."""

from __future__ import annotations

import dataclasses
import os
from typing import Optional

from bert_pretrain.config.option import option, require

# The shortest sequence that the procedure can fill: [CLS] a [SEP] b [SEP].
_MIN_SEQ_LENGTH = 5
_MAX_SEQ_LENGTH = 65_535


@dataclasses.dataclass(frozen=True)
class ExampleConfig:
    """What an example is; names, defaults and meaning are those of google-research/bert's script."""

    max_seq_length: int = option(128, "Tokens in a record.")
    max_predictions_per_seq: int = option(20, "Masked tokens in a record at the most.")
    masked_lm_prob: float = option(0.15, "Share of the tokens that are masked.")
    short_seq_prob: float = option(0.1, "Share of document passes with sequences shorter than max_seq_length.")
    dupe_factor: int = option(10, "Passes over the text, each with other cuts and masks.")
    random_seed: int = option(12345, "Seed of all draws.")
    do_lower_case: bool = option(True, "Lower case without accents, for uncased vocabularies.")
    do_whole_word_mask: bool = option(False, "Mask all pieces of a word, or none.")
    mode: str = option(
        "fast",
        "exact: the bytes of google-research/bert's script; fast: the same distribution from another random stream.",
        ("exact", "fast"),
    )

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be."""
        require(
            _MIN_SEQ_LENGTH <= self.max_seq_length <= _MAX_SEQ_LENGTH,
            f"--max_seq_length must be {_MIN_SEQ_LENGTH} to {_MAX_SEQ_LENGTH}, got {self.max_seq_length}",
        )
        for name in ("max_predictions_per_seq", "dupe_factor"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("masked_lm_prob", "short_seq_prob"):
            require(0 <= getattr(self, name) <= 1, f"--{name} must be in [0, 1], got {getattr(self, name)}")
        require(self.random_seed >= 0, f"--random_seed must be at least 0, got {self.random_seed}")


@dataclasses.dataclass(frozen=True)
class MakeDataConfig:
    """Where text comes from and shards go."""

    input_file: Optional[str] = option(
        None, "Text files, one sentence a line and a blank line between documents; patterns, separated by commas."
    )
    output_file: Optional[str] = option(None, "TFRecord files to write the examples of all inputs to, with commas.")
    output_dir: Optional[str] = option(
        None,
        "Instead of --output_file: a directory that gets one TFRecord file for each input file. With --demo: where "
        "the demo goes; default: demo in $BERT_PRETRAIN_CACHE, or in .cache of the project.",
    )
    vocab_file: Optional[str] = option(None, "WordPiece vocabulary, one entry a line.")
    train_vocab: bool = option(False, "Train a vocabulary from the text and write it to --vocab_file, then stop.")
    vocab_size: int = option(30_522, "Entries of a vocabulary that is trained.")
    demo: bool = option(
        False,
        "Make the embedded demo's vocabulary, model shape and shards from text that every Python installation has.",
    )
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    @property
    def demo_dir(self) -> str:
        """Where the demo's data is made and found again."""
        project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        cache = os.environ.get("BERT_PRETRAIN_CACHE") or os.path.join(project, ".cache")
        return self.output_dir or os.path.join(cache, "demo")

    def check(self) -> None:
        """Raises ValueError for a setting, or a pair of settings, that cannot be."""
        if self.demo:
            return
        require(bool(self.input_file), "--input_file is required, or --demo")
        require(bool(self.vocab_file), "--vocab_file is required; --train_vocab makes one")
        require(self.vocab_size >= 1, f"--vocab_size must be at least 1, got {self.vocab_size}")
        require(
            self.train_vocab or bool(self.output_file) != bool(self.output_dir),
            "give either --output_file, files for the examples of all inputs, or --output_dir, a file for each input",
        )
