"""The settings of the training and evaluation data."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require, require_numbers


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data: which records are read, and how many make a batch."""

    input_files_dir: Optional[str] = option(
        None,
        "Directory with training shards, or several separated by commas; required by --do_train. A directory may be a "
        "URL: s3://bucket/directory, gs://..., hdfs://...; docs/storage.md.",
        is_path=True,
        takes_url=True,
    )
    eval_files_dir: Optional[str] = option(
        None,
        "Directory with evaluation shards, or several separated by commas; required by --do_eval. URLs as above.",
        is_path=True,
        takes_url=True,
    )
    cache_dir: Optional[str] = option(
        None,
        "Local directory for copies of the shards that are given as URLs; all processes of a host share it. Default: "
        "none, and records are read by ranges.",
        is_path=True,
    )
    cache_gb: float = option(
        100.0, "Most gigabytes (10^9 bytes) in --cache_dir; shards beyond them are read by ranges."
    )
    max_seq_length: Optional[int] = option(
        None, "Tokens in a record. Read from the data if not given; an error if it differs from the data."
    )
    max_predictions_per_seq: Optional[int] = option(
        None, "Prediction slots in a record. Read from the data if not given; an error if it differs from the data."
    )
    train_batch_size: int = option(32, "Examples in a micro-batch, per rank.")
    eval_batch_size: int = option(8, "Examples in an evaluation batch, per rank.")
    max_eval_steps: int = option(
        100,
        "Evaluate the first max_eval_steps x eval_batch_size examples, over all ranks together; 0: all examples.",
    )
    skip_unreadable: bool = option(
        False, "Leave out files in the data directories that are not TFRecords and name each, instead of stopping."
    )
    pack_sequences: bool = option(
        True, "Pack several examples into a row. Loss, gradients and update are the same, with less padding."
    )
    data_seed: int = option(0, "Seed of the order of the records, and of --dynamic_masking's masks.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        for name in ("train_batch_size", "eval_batch_size"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        require(self.max_eval_steps >= 0, f"--max_eval_steps must be at least 0, got {self.max_eval_steps}")
        for name in ("max_seq_length", "max_predictions_per_seq"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} must be at least 1, got {value}")
        require(self.cache_gb > 0, f"--cache_gb must be above 0, got {self.cache_gb}")
