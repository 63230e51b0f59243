"""Dynamic masking: the masks of a record are drawn anew at each visit (Liu et al. 2019, arXiv:1907.11692, section 4.1).

The record's own masks are undone first: masked_lm_ids are the tokens that stood at masked_lm_positions. The masks then
follow masking.py's rule with random numbers that are hashes of seed, epoch and record, so they do not depend on how an
update is divided among ranks, micro-batches and rows, nor on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.config.training import MaskingConfig
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.masking import MaskingRule, mask_tokens
from bert_pretrain.data.order import Visits, hash_words, splitmix64
from bert_pretrain.data.schema import BrokenRule, Examples
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.storage.read_ahead import NUM_THREADS
from bert_pretrain.system.files import hash_file

_PURPOSE = 0x6D61736B  # first word of the hashes, which separates them from those of order.py


class Originals(NamedTuple):
    """E sequences with their original tokens."""

    ids: np.ndarray  # [E, S] int32
    num_tokens: np.ndarray  # [E]
    special: tuple[int, int]  # ids of [CLS] and [SEP]

    def choosable(self) -> np.ndarray:
        """[E, S] bool: tokens other than [CLS], [SEP] and padding."""
        choosable = np.arange(self.ids.shape[1], dtype=np.int32) < self.num_tokens[:, None].astype(np.int32)
        for special_id in self.special:
            choosable &= self.ids != special_id
        return choosable


class DynamicMasking(NamedTuple):
    """The rule, ids and seed by which masks are drawn."""

    rule: MaskingRule
    cls_id: int
    sep_id: int
    num_entries: int  # of the vocabulary
    seed: int
    fingerprint: str = ""  # SHA-256 of the vocabulary's file

    @classmethod
    def open(cls, config: MaskingConfig, seed: int, source: Source) -> DynamicMasking:
        """The masking of a data set. ValueError, one line, for a vocabulary that does not fit data or model."""
        path = config.vocab_file
        assert path, "--dynamic_masking requires it"
        vocabulary = load_vocabulary(path)
        num_entries = len(vocabulary.entries)
        if num_entries > source.limits.vocab_size:
            raise ValueError(
                f"--vocab_file: {path} has {num_entries} entries, more than vocab_size {source.limits.vocab_size} of "
                f"--bert_config_file; give the vocabulary of that model"
            )
        fingerprint = hash_file(path)
        _check_side_files(source.index.paths, path, fingerprint)
        most = min(config.max_masked_tokens or source.lengths.max_predictions, source.lengths.seq_length)
        rule = MaskingRule.of(config, vocabulary, most)
        return cls(rule, vocabulary.id("[CLS]"), vocabulary.id("[SEP]"), num_entries, seed, fingerprint)

    def redraw(self, examples: Examples, visits: Visits, names: Sequence[str]) -> Examples:
        """The examples [E] with the masks of these visits. They must be valid (schema.py).

        ValueError, naming the record by its entry of names [E], where a record was made with another vocabulary.
        """
        num_tokens = np.count_nonzero(examples.input_mask, axis=1)
        originals = Originals(original_tokens(examples), num_tokens, (self.cls_id, self.sep_id))
        self._check_vocabulary(originals, names)
        drawn = mask_tokens(originals, self.rule, HashDraws(self.seed, visits))
        used = np.arange(drawn.positions.shape[1]) < drawn.num_masked[:, None]
        return examples._replace(
            input_ids=drawn.input_ids,
            masked_lm_positions=drawn.positions.astype(np.int32),
            masked_lm_ids=drawn.ids.astype(np.int32),
            masked_lm_weights=used.astype(np.float32),
        )

    def _check_vocabulary(self, originals: Originals, names: Sequence[str]) -> None:
        """ValueError for a record that was not made with the vocabulary of --vocab_file."""
        ids, last = originals.ids, originals.num_tokens - 1
        ends = np.stack([ids[:, 0], ids[np.arange(len(ids)), last]])
        if (ends == [[self.cls_id], [self.sep_id]]).all() and ids.max() < self.num_entries:
            return
        is_last = np.arange(ids.shape[1]) == last[:, None]
        for broken, reason in (
            (ids[:, :1] != self.cls_id, f"a record begins with [CLS], whose id is {self.cls_id} in --vocab_file"),
            (is_last & (ids != self.sep_id), f"a record ends with [SEP], whose id is {self.sep_id} in --vocab_file"),
            (ids >= self.num_entries, f"--vocab_file has {self.num_entries} entries"),
        ):
            if broken.any():
                remedy = "give the --vocab_file with which the shards were made, or leave --dynamic_masking out"
                raise ValueError(BrokenRule(broken, ids, "input_ids", f"{reason}; {remedy}").describe(names))


def original_tokens(examples: Examples) -> np.ndarray:
    """[E, S] int32: the tokens of examples before masking."""
    ids = examples.input_ids.copy()
    row, slot = np.nonzero(examples.masked_lm_weights > 0)
    ids[row, examples.masked_lm_positions[row, slot]] = examples.masked_lm_ids[row, slot]
    return ids


class HashDraws:
    """Random numbers for E visits: number n of row e depends on seed, epoch and record of e, on n, and on the draw.

    It does not depend on the other rows, nor on how many numbers are drawn for a row.
    """

    def __init__(self, seed: int, visits: Visits) -> None:
        self._keys = hash_words(_PURPOSE, seed & 0xFFFFFFFFFFFFFFFF, visits.epochs, visits.records)  # [E]
        self._num_draws = 0

    def integers(self, low: int, high: int, size: tuple[int, ...], dtype: Any, endpoint: bool = False) -> np.ndarray:
        """Uniform integers in [0, high): a product and a shift; with `endpoint`, all bits of an unsigned dtype."""
        assert low == 0, "numbers begin at 0 here"
        if not endpoint:
            return (self._halves(size[1]).astype(np.uint64) * np.uint64(high) >> np.uint64(32)).astype(dtype)
        assert high == np.iinfo(dtype).max, "all bits, or numbers below `high`"
        return self._words(size[1]) if dtype == np.uint64 else self._halves(size[1])

    def random(self, size: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Uniform numbers in [0, 1): multiples of 2**-24, which float32 represents exactly."""
        return (self._halves(size[1]) >> np.uint32(8)).astype(dtype) * dtype(2.0**-24)

    def _words(self, count: int) -> np.ndarray:
        """[E, count] uint64 of the next draw."""
        self._num_draws += 1
        stream = splitmix64(self._keys ^ np.uint64(self._num_draws))
        return splitmix64(stream[:, None] + np.arange(count, dtype=np.uint64))

    def _halves(self, count: int) -> np.ndarray:
        """[E, count] uint32 of the next draw: two from each hash."""
        words = self._words(-(-count // 2)).astype("<u8")
        return words.view("<u4")[:, :count].astype(np.uint32)


def _check_side_files(shards: Sequence[str], vocab_file: str, fingerprint: str) -> None:
    """ValueError where the JSON file that make_data writes beside a shard names another vocabulary."""
    with ThreadPoolExecutor(NUM_THREADS) as executor:  # a storage answers many requests at a time
        hashes = list(executor.map(shard_files.vocabulary_hash_of, shards))
    for shard, found in zip(shards, hashes):
        if found not in (None, fingerprint):
            raise ValueError(
                f"--vocab_file: {shard} was made with another vocabulary than {vocab_file} (SHA-256 {found[:12]} in "
                f"{shard}.json, {fingerprint[:12]} here); give the one with which it was made"
            )
