"""Records that are there more than once, and where."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.check_data.contents import ShardFacts

_MAX_SHARE = 0.01  # short documents give equal examples in several passes; more duplicates are a mistake
_MAX_SHARDS = 3  # named in a line


class Duplicates(NamedTuple):
    """Repeated records of a data set."""

    count: int  # records that repeat an earlier one
    num_records: int
    where: str  # the shards with most of them, and one example; empty if there are none
    equal_shards: list[str]  # a line for each shard that has the records of an earlier one

    def __str__(self) -> str:
        return f"{self.count} of {self.num_records} records ({self.share:.2%}) repeat others"

    @property
    def share(self) -> float:
        """Of all records."""
        return self.count / max(1, self.num_records)

    @property
    def are_many(self) -> bool:
        """Whether they are more than text gives by itself."""
        return self.share > _MAX_SHARE


def find(shards: Sequence[ShardFacts]) -> Duplicates:
    """Compares the hashes of all records."""
    hashes = np.concatenate([shard.record_hashes for shard in shards])
    count = len(hashes) - len(np.unique(hashes))
    return Duplicates(count, len(hashes), _where(shards, hashes) if count else "", _equal_shards(shards))


def _where(shards: Sequence[ShardFacts], hashes: np.ndarray) -> str:
    ends = np.cumsum([len(shard.record_hashes) for shard in shards])
    order = np.argsort(hashes, kind="stable")  # within equal hashes, the first record is the original
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    counts = np.bincount(np.searchsorted(ends, order[repeats], side="right"), minlength=len(shards))
    most = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]]
    named = ", ".join(f"{counts[number]} in {shards[number].path}" for number in most[:_MAX_SHARDS])
    more = f" and others in {len(most) - _MAX_SHARDS} more shards" if len(most) > _MAX_SHARDS else ""
    first = repeats[np.argmin(order[repeats])]
    later, earlier = order[first], order[first - 1]
    return f"{named}{more}; for example, {_place(shards, ends, later)} is {_place(shards, ends, earlier)}"


def _place(shards: Sequence[ShardFacts], ends: np.ndarray, record: int) -> str:
    shard = int(np.searchsorted(ends, record, side="right"))
    return f"record {record - (ends[shard] - len(shards[shard].record_hashes))} of {shards[shard].path}"


def _equal_shards(shards: Sequence[ShardFacts]) -> list[str]:
    first: dict[bytes, str] = {}
    found = []
    for shard in shards:
        if shard.num_records:
            key = hashlib.sha256(np.sort(shard.record_hashes).tobytes()).digest()
            if key in first:
                found.append(f"{shard.path}: the same records as {os.path.basename(first[key])}; remove one of them")
            first.setdefault(key, shard.path)
    return found
