"""The settings of `python -m bert_pretrain.export` and of `python -m bert_pretrain.fill_mask`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require

_MAX_TOP = 1000
MAX_SENTENCES = 1000


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Which model is exported, and to what."""

    checkpoint: str = option(
        "",
        "Model: the prefix of a TF1 checkpoint, the output_dir of a run, or a Hugging Face folder.",
        required=True,
        is_path=True,
        is_fetched=True,
    )
    bert_config_file: Optional[str] = option(
        None,
        "bert_config.json; default: what run.json, config.json or bert_config.json says there.",
        is_path=True,
        is_fetched=True,
    )
    vocab_file: Optional[str] = option(
        None,
        "vocab.txt; default: the one beside the checkpoint or beside bert_config.json.",
        is_path=True,
        is_fetched=True,
    )
    do_lower_case: Optional[bool] = option(
        None, "The vocabulary is uncased; default: what tokenizer_config.json beside the checkpoint says, else true."
    )
    hf_dir: Optional[str] = option(None, "Write a Hugging Face folder here; it must not exist.", is_path=True)
    saved_model_dir: Optional[str] = option(None, "Write a SavedModel here; it must not exist.", is_path=True)
    tf1_prefix: Optional[str] = option(
        None, "Write a TF1 checkpoint of the weights alone here, with Google's names; a prefix.", is_path=True
    )
    verify: bool = option(
        False, "Compare the logits of everything that was written with the checkpoint's; exit code 1 if they differ."
    )
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require(bool(self.checkpoint), "--checkpoint is required, the model that is exported")
        require(
            bool(self.hf_dir or self.saved_model_dir or self.tf1_prefix),
            "nothing to write: give --hf_dir, --saved_model_dir or --tf1_prefix",
        )


@dataclasses.dataclass(frozen=True)
class FillMaskConfig:
    """What the model is asked, and where its files are."""

    next_sentence: bool = option(False, "Two texts are given: print the probability that the second follows the first.")
    top: int = option(5, "Words for each [MASK].")
    bert_config_file: Optional[str] = option(
        None,
        "bert_config.json; default: what run.json, config.json or bert_config.json says there.",
        is_path=True,
        is_fetched=True,
    )
    vocab_file: Optional[str] = option(
        None,
        "vocab.txt; default: the one beside the model or beside bert_config.json.",
        is_path=True,
        is_fetched=True,
    )
    do_lower_case: Optional[bool] = option(
        None, "The vocabulary is uncased; default: what tokenizer_config.json beside the model says, else true."
    )
    held_out_shards: Optional[str] = option(
        None,
        "Instead of a text: mask a word in sentences of the shards in this directory, or several separated by commas "
        "(a name with commas that exists is one).",
        is_path=True,
        is_list=True,
        takes_url=True,
    )
    num_sentences: int = option(3, "With --held_out_shards: number of sentences.")
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require(1 <= self.top <= _MAX_TOP, f"--top must be 1 to {_MAX_TOP}, got {self.top}")
        require(
            1 <= self.num_sentences <= MAX_SENTENCES,
            f"--num_sentences must be 1 to {MAX_SENTENCES}, got {self.num_sentences}",
        )
        require(
            not (self.next_sentence and self.held_out_shards),
            "--next_sentence and --held_out_shards exclude each other; give one",
        )
