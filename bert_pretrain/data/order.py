"""Which records form an update, and which of them a rank has: a pure function of seed, update and batch size.

Random numbers are integer hashes without state. NumPy's generators are not used because their streams may change from
version to version.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Union

import numpy as np

BLOCK = 64  # consecutive records: 160 KB at 2.5 KB a record, a sensible read-ahead
POOL = 1024  # blocks shuffled into each other: 65,536 records


class Pool(NamedTuple):
    """Positions whose records lie in the same POOL blocks; `number` counts from 0 within `epoch`."""

    epoch: int
    number: int


class Blocks(NamedTuple):
    """Runs of consecutive records: the first record of each, and how many."""

    first: np.ndarray  # int64
    lengths: np.ndarray  # int64


class Visits(NamedTuple):
    """Records of an update and the epoch of each visit; an update may end one epoch and begin the next."""

    records: np.ndarray  # [E] int64, counted over all shards from 0
    epochs: np.ndarray  # [E] int64, from 0


class _Epoch(NamedTuple):
    """The permuted blocks of an epoch, and the position in it at which each pool begins; the last entry is its end."""

    blocks: (
        np.ndarray
    )  # int32 block numbers: each rank holds two epochs, and 150 million records have 2.3 million blocks
    pool_starts: np.ndarray  # int64


def evaluation_slice(num_examples: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """Start, stop of a rank's slice of a finite set in file order; slices differ by at most one example."""
    return num_examples * rank // num_ranks, num_examples * (rank + 1) // num_ranks


class Order:
    """The order of training records over `records_per_shard`, all epochs, for one seed."""

    def __init__(self, records_per_shard: Sequence[int], seed: int) -> None:
        self._seed = seed & 0xFFFFFFFFFFFFFFFF
        self._blocks = _BlockTable(np.asarray(records_per_shard, np.int64))
        self.num_records = int(np.sum(records_per_shard))
        assert self.num_records > 0, "an order needs a record"
        self._epoch = functools.lru_cache(maxsize=2)(self._permute_blocks)
        self._pool = functools.lru_cache(maxsize=2)(self._permute_pool)

    def records(self, start: int, stop: int) -> np.ndarray:
        """[stop - start] int64: record numbers, counted over all shards from 0, at positions start:stop."""
        parts = [np.zeros([0], np.int64)]
        while start < stop:
            pool = self.pool(start)
            ends_at = self._ends_at(pool)
            records = self._pool(pool)
            first = len(records) - (ends_at - start)
            parts.append(records[first : first + stop - start])
            start = ends_at
        return np.concatenate(parts)

    def visits(self, start: int, stop: int) -> Visits:
        """The records at positions start:stop with their epochs."""
        return Visits(self.records(start, stop), np.arange(start, stop) // self.num_records)

    def pool(self, position: int) -> Pool:
        """The pool to which a position belongs."""
        epoch, within = divmod(position, self.num_records)
        number = np.searchsorted(self._epoch(epoch).pool_starts, within, side="right") - 1
        return Pool(epoch, int(number))

    def pool_after(self, pool: Pool) -> Pool:
        """The next pool, which may be in the next epoch."""
        return self.pool(self._ends_at(pool))

    def pool_blocks(self, pool: Pool) -> Blocks:
        """The runs of records in a pool, for read-ahead."""
        return self._blocks.runs(self._epoch(pool.epoch).blocks[pool.number * POOL : (pool.number + 1) * POOL])

    def _ends_at(self, pool: Pool) -> int:
        return pool.epoch * self.num_records + int(self._epoch(pool.epoch).pool_starts[pool.number + 1])

    def _permute_blocks(self, epoch: int) -> _Epoch:
        lengths = self._blocks.lengths
        blocks = _permutation(len(lengths), self._seed, epoch, 0).astype(np.int32)
        pool_lengths = np.add.reduceat(lengths[blocks], np.arange(0, len(blocks), POOL), dtype=np.int64)
        return _Epoch(blocks, np.concatenate([[0], np.cumsum(pool_lengths)]))

    def _permute_pool(self, pool: Pool) -> np.ndarray:
        first, lengths = self.pool_blocks(pool)
        starts = np.cumsum(lengths) - lengths
        records = np.repeat(first - starts, lengths) + np.arange(lengths.sum())
        return records[_permutation(len(records), self._seed, pool.epoch, 1 + pool.number)]


class _BlockTable:
    """The blocks of all shards, numbered in their order."""

    def __init__(self, records_per_shard: np.ndarray) -> None:
        num_blocks = -(-records_per_shard // BLOCK)
        self._ends = np.cumsum(num_blocks)
        self._starts = self._ends - num_blocks
        self._shard_starts = np.cumsum(records_per_shard) - records_per_shard
        self.lengths = np.full([num_blocks.sum()], BLOCK, np.uint8)
        has_records = records_per_shard > 0
        self.lengths[self._ends[has_records] - 1] = (records_per_shard[has_records] - 1) % BLOCK + 1

    def runs(self, blocks: np.ndarray) -> Blocks:
        """The records of blocks, given by number."""
        shards = np.searchsorted(self._ends, blocks, side="right")
        first = self._shard_starts[shards] + (blocks - self._starts[shards]) * BLOCK
        return Blocks(first, self.lengths[blocks].astype(np.int64))


def _permutation(size: int, *key: int) -> np.ndarray:
    """A permutation of range(size), a pure function of its arguments."""
    return np.argsort(splitmix64(hash_words(*key) ^ np.arange(size, dtype=np.uint64)), kind="stable")


def splitmix64(state: np.ndarray) -> np.ndarray:
    """One output for each uint64 state (Steele, Lea and Flood 2014, https://prng.di.unimi.it/splitmix64.c)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def hash_words(*words: Union[int, np.ndarray]) -> np.ndarray:
    """[1] or [E] uint64: a hash of words, each an integer below 2**64 or an array [E] of them."""
    state = np.zeros([1], np.uint64)
    for word in words:
        state = splitmix64(state ^ np.asarray(word, np.uint64))
    return state


def records_for_rank(sizes: np.ndarray, rank: int, num_ranks: int) -> np.ndarray:
    """[G / W] ascending indices into the record sizes [G]: the examples of `rank`. W divides G. Deterministic."""
    return divide_by_size(sizes, num_ranks)[rank]


def divide_by_size(sizes: np.ndarray, num_parts: int) -> np.ndarray:
    """[N, G / N] indices into the record sizes [G]: the examples of each of N parts, ascending. N divides G.

    Greedy: from the largest on, N examples at a time, the largest of them to the part with the smallest sum so far.
    """
    rounds = np.argsort(-sizes, kind="stable").reshape(-1, num_parts)
    totals = np.zeros([num_parts], np.int64)
    parts = np.empty_like(rounds)
    for taken, dealt in zip(parts, rounds):
        smallest_first = np.argsort(totals, kind="stable")
        totals[smallest_first] += sizes[dealt]
        taken[smallest_first] = dealt
    return np.sort(parts.T, axis=1)


def examples_for_rank(sizes: np.ndarray, num_micro_batches: int, rank: int, num_ranks: int) -> np.ndarray:
    """[G / W] indices into the record sizes [G]: the examples of a rank's micro-batches, one after the other.

    num_micro_batches is K, over all ranks; it divides G, and W divides it.
    """
    per_rank = num_micro_batches // num_ranks
    return divide_by_size(sizes, num_micro_batches)[rank * per_rank : (rank + 1) * per_rank].reshape(-1)
