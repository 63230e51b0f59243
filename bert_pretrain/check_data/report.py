"""The report on a data set, from the facts about its shards."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.check_data.inspection import Contents, Expectation, ShardFacts
from bert_pretrain.data.packing import pack_rows

_MAX_DUPLICATE_SHARE = 0.01  # short documents give equal examples in several passes; more duplicates are a mistake
_PACKED_TOGETHER = 192  # examples of an update, to estimate the gain of packing
_NUM_BINS = 8


class Report(NamedTuple):
    """Lines for the user: what was found, what is unusual, and what is wrong."""

    findings: list[str]
    remarks: list[str]
    faults: list[str]


def summarize(shards: Sequence[ShardFacts], expectation: Expectation, mask_id: Optional[int]) -> Report:
    """The report on a data set; mask_id is that of [MASK], None without a vocabulary."""
    faults = [fault for shard in shards for fault in shard.faults]
    remarks: list[str] = []
    records = [shard.num_records for shard in shards]
    sizes = [shard.num_bytes / 1e6 for shard in shards]
    findings = [
        f"{len(shards)} shards of {min(sizes):.1f} to {max(sizes):.1f} MB, {sum(records)} records, "
        f"{min(records)} to {max(records)} in a shard",
        f"max_seq_length {expectation.seq_length}, max_predictions_per_seq {expectation.max_predictions}",
    ]
    remarks += _uneven(shards)
    faults += [f"{shard.path}: no records" for shard in shards if not shard.num_records and not shard.faults]
    _duplicates(shards, findings, remarks, faults)
    contents = sum_contents([shard.contents for shard in shards])
    if contents.num_parsed:
        _masking(contents, mask_id, findings, remarks)
        _next_sentences(contents, findings, remarks)
        _lengths(contents, expectation, findings)
    return Report(findings, remarks, faults)


def _uneven(shards: Sequence[ShardFacts]) -> list[str]:
    folders: dict[str, list[int]] = {}
    for shard in shards:
        folders.setdefault(os.path.dirname(shard.path), []).append(shard.num_records)
    return [
        f"{folder}: the largest shard has {max(records)} records, the smallest {min(records)}"
        for folder, records in folders.items()
        if max(records) > 2 * min(records)
    ]


def sum_contents(parts: Sequence[Contents]) -> Contents:
    """The contents of several shards together."""
    parts = [part for part in parts if part.num_parsed]
    if not parts:
        return Contents()
    counts: Counter = Counter()
    for part in parts:
        counts.update(part.replacement_counts or {})
    return Contents(
        sum(part.num_parsed for part in parts),
        np.sum([part.length_counts for part in parts], axis=0),
        sum(part.num_random_next for part in parts),
        sum(part.num_masked for part in parts),
        sum(part.num_kept for part in parts),
        counts,
        max(part.max_id for part in parts),
    )


def _duplicates(shards: Sequence[ShardFacts], findings: list[str], remarks: list[str], faults: list[str]) -> None:
    hashes = np.concatenate([shard.record_hashes for shard in shards])
    num_duplicates = len(hashes) - len(np.unique(hashes))
    findings.append(f"{num_duplicates} records that repeat others")
    if num_duplicates > _MAX_DUPLICATE_SHARE * len(hashes):
        faults.append(f"{num_duplicates} of {len(hashes)} records repeat others; was a shard copied, or made twice?")
    elif num_duplicates:
        remarks.append(f"{num_duplicates} of {len(hashes)} records repeat others")
    first: dict[bytes, str] = {}
    for shard in shards:
        if shard.num_records:
            key = hashlib.sha256(np.sort(shard.record_hashes).tobytes()).digest()
            if key in first:
                faults.append(f"{shard.path}: the same records as {os.path.basename(first[key])}; remove one of them")
            first.setdefault(key, shard.path)


def _masking(contents: Contents, mask_id: Optional[int], findings: list[str], remarks: list[str]) -> None:
    num_tokens = int((contents.length_counts * np.arange(len(contents.length_counts))).sum())
    share = contents.num_masked / num_tokens
    counts = contents.replacement_counts or Counter()
    if mask_id is None:  # no other token replaces so many
        mask_id = counts.most_common(1)[0][0] if counts else -1
    masks = counts[mask_id] / contents.num_masked
    kept = contents.num_kept / contents.num_masked
    others = max(0.0, 1 - masks - kept)
    findings.append(
        f"{share:.1%} of the tokens are to be predicted: {masks:.1%} [MASK] (id {mask_id}), {others:.1%} other tokens, "
        f"{kept:.1%} as they were"
    )
    if not 0.10 <= share <= 0.20:
        remarks.append(f"{share:.1%} of the tokens are to be predicted; BERT's recipe has 15 %")
    if max(abs(masks - 0.8), abs(kept - 0.1), abs(others - 0.1)) > 0.03:
        remarks.append(
            f"{masks:.0%}, {others:.0%} and {kept:.0%} [MASK], other, unchanged; BERT's recipe is 80, 10, 10"
        )


def _next_sentences(contents: Contents, findings: list[str], remarks: list[str]) -> None:
    share = contents.num_random_next / contents.num_parsed
    findings.append(f"{share:.1%} of the second sentences are random")
    if not 0.3 <= share <= 0.75:
        remarks.append(f"{share:.1%} of the second sentences are random; BERT's recipe has about half")


def _lengths(contents: Contents, expectation: Expectation, findings: list[str]) -> None:
    counts, capacity = contents.length_counts, expectation.seq_length
    lengths = np.repeat(np.arange(len(counts)), counts)
    edges = np.linspace(0, capacity, _NUM_BINS + 1).astype(int)
    shares = np.histogram(lengths, edges)[0] / len(lengths)
    bins = ", ".join(f"{low}-{high}: {share:.0%}" for low, high, share in zip(edges, edges[1:], shares))
    findings.append(f"tokens in a record: {bins}")
    sample = np.random.default_rng(0).permutation(lengths)[:_PACKED_TOGETHER].tolist()
    packed = pack_rows(sample, capacity)
    gain = len(sample) * capacity / (len(packed.rows) * packed.width)
    padding = 1 - lengths.mean() / capacity
    findings.append(f"{padding:.1%} padding; packing saves it and computes {gain:.2f} times fewer tokens")
