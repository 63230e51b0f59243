"""The settings of `python -m bert_pretrain.check_data`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import MAX_PROCESSES, MAX_SEQ_LENGTH, option, require, require_numbers


@dataclasses.dataclass(frozen=True)
class CheckDataConfig:
    """Which shards are inspected, how thoroughly, and what their records must be like."""

    input_files_dir: Optional[str] = option(
        None, "Directory with shards, or several separated by commas.", required=True, is_path=True
    )
    vocab_file: Optional[str] = option(
        None, "Vocabulary of the shards; ids, [CLS], [SEP] and [MASK] are checked with it.", is_path=True
    )
    vocab_size: Optional[int] = option(None, "Instead of --vocab_file: ids must be smaller than this.")
    max_seq_length: Optional[int] = option(
        None, "Tokens that a record must have; default: as many as the first record."
    )
    max_predictions_per_seq: Optional[int] = option(
        None, "Prediction slots that a record must have; default: as many as the first record."
    )
    full: bool = option(
        False, "Parse every record, not a sample. Framing, CRCs and duplicates are always checked for all records."
    )
    num_processes: int = option(0, "Processes; 0: one for each core.")
    write_manifest: bool = option(
        True, "Write manifest.json into each directory without faults; training refuses data that differ from it."
    )
    skip_unreadable: bool = option(False, "Leave out files that are not TFRecords and name each, instead of stopping.")
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(bool(self.input_files_dir), "--input_files_dir is required, a directory with TFRecord shards")
        require(
            0 <= self.num_processes <= MAX_PROCESSES,
            f"--num_processes must be 0 to {MAX_PROCESSES}, got {self.num_processes}",
        )
        require(
            self.vocab_size is None or self.vocab_file is None,
            "--vocab_file and --vocab_size exclude each other; give one",
        )
        for name in ("max_seq_length", "max_predictions_per_seq"):
            value = getattr(self, name)
            require(
                value is None or 1 <= value <= MAX_SEQ_LENGTH, f"--{name} must be 1 to {MAX_SEQ_LENGTH}, got {value}"
            )
        require(
            self.vocab_size is None or self.vocab_size >= 1, f"--vocab_size must be at least 1, got {self.vocab_size}"
        )
