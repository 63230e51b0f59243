"""The settings of `python -m bert_pretrain.check_data`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import MAX_PROCESSES, MAX_SEQ_LENGTH, option, require, require_numbers

_SHOWN_BY_DEFAULT = 3  # examples, where a vocabulary is given
_MAX_SHOWN = 1000


@dataclasses.dataclass(frozen=True)
class CheckDataConfig:
    """Which shards are inspected, how thoroughly, and what their records must be like."""

    input_files_dir: str = option(
        "",
        "Directory with shards, or several separated by commas; a name with commas that exists is one.",
        required=True,
        is_path=True,
        is_list=True,
    )
    vocab_file: Optional[str] = option(
        None,
        "Vocabulary of the shards; ids and special tokens are checked with it, and examples are shown as text.",
        is_path=True,
        is_fetched=True,
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
    show: Optional[int] = option(
        None,
        "Examples that are printed as text, with --vocab_file; 0: none. Default: 3 with --vocab_file, none without.",
    )
    histogram: Optional[str] = option(
        None, "File (.png, .svg or .pdf) for a picture of the lengths; needs matplotlib.", is_path=True
    )
    num_processes: int = option(0, "Processes; 0: one for each core.")
    write_manifest: bool = option(
        True, "Write manifest.json into each directory without faults; training refuses data that differ from it."
    )
    skip_unreadable: bool = option(False, "Leave out files that are not TFRecords and name each, instead of stopping.")
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    def num_shown(self) -> int:
        """Examples to print."""
        return (_SHOWN_BY_DEFAULT if self.vocab_file else 0) if self.show is None else self.show

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
        require(0 <= self.num_shown() <= _MAX_SHOWN, f"--show must be 0 to {_MAX_SHOWN}, got {self.show}")
        require(not self.show or bool(self.vocab_file), "--show needs --vocab_file, whose entries are the text")
        for name in ("max_seq_length", "max_predictions_per_seq"):
            value = getattr(self, name)
            require(
                value is None or 1 <= value <= MAX_SEQ_LENGTH, f"--{name} must be 1 to {MAX_SEQ_LENGTH}, got {value}"
            )
        require(
            self.vocab_size is None or self.vocab_size >= 1, f"--vocab_size must be at least 1, got {self.vocab_size}"
        )


@dataclasses.dataclass(frozen=True)
class EstimateConfig:
    """Estimate of the epochs and hours of a run on these data."""

    recipe: Optional[str] = option(
        None,
        "Flagfile of bert_pretrain.run, such as those in configs/run: updates an epoch and epochs are printed.",
        is_path=True,
    )
    ranks: Optional[int] = option(
        None, "Ranks of that run. Default: those of --results, 1 without --horovod in the recipe."
    )
    results: Optional[str] = option(
        None,
        "results.json of a run with the same model and number of ranks, or its directory: hours are printed.",
        is_path=True,
    )
    examples_per_second: Optional[float] = option(
        None, "Instead of --results: the speed of that run, over all ranks together."
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        for name in ("ranks", "results", "examples_per_second"):
            require(getattr(self, name) is None or bool(self.recipe), f"--{name} needs --recipe, the run to estimate")
        require(self.ranks is None or self.ranks >= 1, f"--ranks must be at least 1, got {self.ranks}")
        require(
            self.examples_per_second is None or self.examples_per_second > 0,
            f"--examples_per_second must be above 0, got {self.examples_per_second}",
        )
        require(
            self.results is None or self.examples_per_second is None,
            "--results and --examples_per_second exclude each other; give one",
        )
