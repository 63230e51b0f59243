"""The settings of dynamic masking, for which training draws the masks of each epoch anew."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require, require_numbers


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Masking: whether the masks of the training records are drawn anew in each epoch."""

    dynamic_masking: bool = option(
        False, "Draw the masks of a training record anew at each visit; evaluation keeps the masks of its records."
    )
    vocab_file: Optional[str] = option(
        None,
        "With --dynamic_masking, which requires it: the vocabulary with which the shards were made.",
        is_path=True,
        is_fetched=True,
    )
    masked_lm_prob: float = option(0.15, "With --dynamic_masking: share of the tokens that are masked.")
    do_whole_word_mask: bool = option(False, "With --dynamic_masking: mask all pieces of a word, or none.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(0 <= self.masked_lm_prob <= 1, f"--masked_lm_prob must be in [0, 1], got {self.masked_lm_prob}")
        require(
            not self.dynamic_masking or bool(self.vocab_file),
            "--dynamic_masking needs --vocab_file, the vocabulary with which the shards were made",
        )
