"""A data set: its shards, the lengths of its records, and the limits that the model sets for their contents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.config.training import DataConfig
from bert_pretrain.data import schema
from bert_pretrain.data.schema import Examples, Limits
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.shards.index_tables import ALONE, Share
from bert_pretrain.data.shards.shard_files import find_shards, in_directory
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.storage.file_cache import FileCache

_SAMPLED_RUNS, _SAMPLED_NEIGHBOURS = 32, 8
_COUNTED_RUNS = 512


class Lengths(NamedTuple):
    """S and P of a data set's records."""

    seq_length: int
    max_predictions: int


class Sample(NamedTuple):
    """Some records of a data set, E in number."""

    numbers: np.ndarray  # [E] int64, counted over all shards
    names: list[str]  # [E] path:byte
    examples: Examples


@dataclasses.dataclass(frozen=True)
class Source:
    """An indexed data set."""

    index: ShardIndex
    lengths: Lengths
    limits: Limits

    @classmethod
    def open(
        cls,
        directories: Sequence[str],
        flags: DataConfig,
        limits: Limits,
        share: Share = ALONE,
        is_root: bool = True,
        cache: Optional[FileCache] = None,
    ) -> Source:
        """Finds and indexes the shards in `directories`. ValueError, one line, for whatever is wrong with them.

        The shards of a directory with a manifest.json must be those that it describes. Directories may be URLs, whose
        shards are copied into `cache`, if one is given.
        """
        index = ShardIndex(find_shards(directories, flags.skip_unreadable, is_root), share, cache)
        lengths = read_lengths(index, flags)
        for directory in directories:
            shard_files.enforce_manifest(directory, in_directory(index.files, directory), *lengths)
        return cls(index, lengths, limits)

    def read_sample(self, num_runs: int = _SAMPLED_RUNS) -> Sample:
        """Records at equal distances over all shards, in short runs of 8 neighbours, so that few reads get them.

        ValueError, naming the record, for one that training would refuse.
        """
        num_runs = min(num_runs, -(-self.index.num_records // _SAMPLED_NEIGHBOURS))
        starts = np.arange(num_runs) * self.index.num_records // num_runs
        numbers = np.unique(starts[:, None] + np.arange(_SAMPLED_NEIGHBOURS))
        numbers = numbers[numbers < self.index.num_records]
        names = self.index.names(numbers)
        examples = schema.read_examples(self.index.read(numbers), names, *self.lengths)
        schema.check_examples(examples, self.limits, names)
        return Sample(numbers, names, examples)

    def count_predicted_tokens(self) -> np.ndarray:
        """[V] int64: how often each token is to be predicted in a sample of some 4,000 records.

        ValueError, naming the record, for one that training would refuse.
        """
        examples = self.read_sample(_COUNTED_RUNS).examples
        return np.bincount(examples.masked_lm_ids[examples.masked_lm_weights > 0], minlength=self.limits.vocab_size)


def read_lengths(index: ShardIndex, flags: DataConfig) -> Lengths:
    """S and P from the first record of each shard. ValueError where shards or flags disagree, naming both numbers."""
    firsts = np.cumsum(index.records_per_shard) - index.records_per_shard
    names = index.names(firsts)
    found = [Lengths(*schema.record_lengths(record, name)) for record, name in zip(index.read(firsts), names)]
    for name, lengths in zip(names, found):
        if lengths != found[0]:
            raise ValueError(
                f"{name}: records here have {lengths.seq_length} tokens and {lengths.max_predictions} predictions, "
                f"those of {index.paths[0]} have {found[0].seq_length} and {found[0].max_predictions}; "
                f"train on records of one length at a time"
            )
    for flag, stored in zip(("max_seq_length", "max_predictions_per_seq"), found[0]):
        given = getattr(flags, flag)
        if given is not None and given != stored:
            raise ValueError(
                f"--{flag} is {given}, but the records of {index.paths[0]} have {stored}; "
                f"give --{flag}={stored}, or no such flag, and it is read from the data"
            )
    return found[0]
