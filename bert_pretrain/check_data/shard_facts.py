"""What is asked about a shard and what is found in it, plain values that go between processes; and a worker's task.

No TensorFlow at import: a worker process imports this module first, and then hides what TensorFlow's import prints.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.data.findings import RecordStatistics
from bert_pretrain.system.worker_pool import ReportProgress
from bert_pretrain.tensorflow_compat import tensorflow_import

# Of no records.
_NO_LENGTHS = np.zeros(1, np.int64)
_NO_TOKENS: Counter[int] = Counter()


class Expectation(NamedTuple):
    """What the records must be like; None where it is unknown."""

    seq_length: int
    max_predictions: int
    vocab_size: Optional[int]
    cls_id: Optional[int]
    sep_id: Optional[int]
    unk_id: Optional[int] = None  # [UNK] is counted with it


class ShardToInspect(NamedTuple):
    """A shard to inspect."""

    path: str
    expectation: Expectation
    sample_size: int  # records to parse; 0: all
    num_shown: int = 0  # records that are returned whole


class Contents(NamedTuple):
    """Sums over parsed records."""

    num_parsed: int = 0
    length_counts: np.ndarray = _NO_LENGTHS  # [S+1]: records of 0, 1, ... S tokens
    num_random_next: int = 0
    num_masked: int = 0
    num_kept: int = 0  # masked tokens that were left unchanged
    replacement_counts: Counter[int] = _NO_TOKENS  # tokens that replace the others
    max_id: int = -1
    num_unknown: int = 0  # [UNK] in the text, before masking
    num_unmasked: int = 0  # records without a token to predict
    num_one_segment: int = 0  # records whose segment ids are all 0

    def statistics(self, mask_id: int, knows_unknown: bool) -> RecordStatistics:
        """What is judged; knows_unknown: whether num_unknown was counted."""
        return RecordStatistics(
            records=self.num_parsed,
            slots=self.num_parsed * (len(self.length_counts) - 1),
            tokens=count_tokens(self),
            predictions=self.num_masked,
            without_prediction=self.num_unmasked,
            with_one_segment=self.num_one_segment,
            random_next=self.num_random_next,
            mask_tokens=self.replacement_counts[mask_id],
            kept_tokens=self.num_kept,
            unknown=self.num_unknown if knows_unknown else None,
        )


class ShownExample(NamedTuple):
    """One record for the user to read."""

    name: str  # path:byte
    token_ids: list[int]  # without padding
    labels: dict[int, int]  # column -> the token that stood there
    is_random_next: bool
    is_single: bool = False  # a single sequence


class ShardFacts(NamedTuple):
    """What a shard contains, and its faults."""

    path: str
    num_bytes: int
    num_records: int
    record_hashes: np.ndarray  # [N] uint64
    contents: Contents
    faults: list[str]
    shown: Sequence[ShownExample] = ()


def count_tokens(contents: Contents) -> int:
    """Tokens of the parsed records, without padding."""
    return int((contents.length_counts * np.arange(len(contents.length_counts))).sum())


def sum_contents(parts: Sequence[Contents]) -> Contents:
    """The contents of several shards together."""
    parts = [part for part in parts if part.num_parsed]
    if not parts:
        return Contents()
    counts: Counter[int] = Counter()
    for part in parts:
        counts.update(part.replacement_counts)
    return Contents(
        sum(part.num_parsed for part in parts),
        np.sum([part.length_counts for part in parts], axis=0),
        sum(part.num_random_next for part in parts),
        sum(part.num_masked for part in parts),
        sum(part.num_kept for part in parts),
        counts,
        max(part.max_id for part in parts),
        sum(part.num_unknown for part in parts),
        sum(part.num_unmasked for part in parts),
        sum(part.num_one_segment for part in parts),
    )


def inspect_in_worker(task: ShardToInspect, report: ReportProgress) -> ShardFacts:
    """inspection.inspect_shard; the first call in a process imports it, and TensorFlow with it."""
    if "tensorflow" not in sys.modules:
        import_inspection()
    from bert_pretrain.check_data import inspection

    return inspection.inspect_shard(task, report)


def import_inspection() -> None:
    """Imports what reads records, TensorFlow among it, which then prints nothing."""
    with tensorflow_import.imported_quickly():
        from bert_pretrain.check_data import inspection  # noqa: F401
