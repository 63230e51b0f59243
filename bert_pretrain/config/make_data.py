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
    num_picked_examples: int = option(
        0, "Exact mode: keep only so many examples, at equal distances, as MLPerf does for evaluation; 0 keeps all."
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
        require(
            self.num_picked_examples >= 0,
            f"--num_picked_examples must be at least 0, got {self.num_picked_examples}",
        )
        require(
            not self.num_picked_examples or self.mode == "exact",
            "--num_picked_examples needs --mode=exact, where their number is known before they are written",
        )
        require(self.random_seed >= 0, f"--random_seed must be at least 0, got {self.random_seed}")


@dataclasses.dataclass(frozen=True)
class MakeDataConfig:
    """What is made, where text comes from and where the result goes."""

    input_file: Optional[str] = option(
        None, "Text files, one sentence a line and a blank line between documents; patterns, separated by commas."
    )
    output_file: Optional[str] = option(None, "TFRecord files to write the examples of all inputs to, with commas.")
    output_dir: Optional[str] = option(
        None,
        "Instead of --output_file: a directory for one TFRecord file for each input file, or for --num_shards. With "
        "--make_text: for the text. With --demo: for the demo; default: demo in $BERT_PRETRAIN_CACHE, or in .cache.",
    )
    num_shards: int = option(
        0, "Divide the text of all inputs between documents, for so many files in --output_dir; 0: a file each."
    )
    num_processes: int = option(0, "Processes on this machine; 0: one for each core. mpirun -np N makes N - 1 instead.")
    vocab_file: Optional[str] = option(None, "WordPiece vocabulary, one entry a line.")
    train_vocab: bool = option(False, "Only train a vocabulary from the text and write it to --vocab_file.")
    vocab_size: int = option(30_522, "Entries of a vocabulary that is trained.")
    make_text: bool = option(
        False,
        "Only divide raw text into sentences: --input_file names .txt, .jsonl or WikiExtractor files, or folders of "
        "them; --output_dir gets train/ and eval/ in the form that the other steps read.",
    )
    num_held_out: int = option(10_000, "With --make_text: articles for eval/, drawn by MLPerf's rule.")
    language: str = option("en", "With --make_text: the language whose rules divide text into sentences.")
    demo: bool = option(
        False,
        "Only make the embedded demo's vocabulary, model and shards, from text that every Python installation has.",
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
        for name in ("num_shards", "num_processes", "num_held_out"):
            require(getattr(self, name) >= 0, f"--{name} must be at least 0, got {getattr(self, name)}")
        require(self.vocab_size >= 1, f"--vocab_size must be at least 1, got {self.vocab_size}")
        only = [f"--{name}" for name in ("demo", "make_text", "train_vocab") if getattr(self, name)]
        require(len(only) <= 1, f"{' and '.join(only)} are steps of their own; give one at a time")
        if self.demo:
            return
        require(bool(self.input_file), "--input_file is required, or --demo")
        if self.make_text:
            require(bool(self.output_dir), "--make_text needs --output_dir")
            return
        require(bool(self.vocab_file), "--vocab_file is required; --train_vocab makes one")
        if self.train_vocab:
            return
        require(
            bool(self.output_file) != bool(self.output_dir),
            "give either --output_file, files for the examples of all inputs, or --output_dir, a file for each input",
        )
        require(not self.num_shards or bool(self.output_dir), "--num_shards needs --output_dir")
