"""The report on a data set, from the facts about its shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.check_data import duplicates, histogram
from bert_pretrain.check_data.contents import Contents, Expectation, ShardFacts, num_tokens, sum_contents
from bert_pretrain.data.packing import pack_rows

_PACKED_TOGETHER = 192  # examples of an update, to estimate the gain of packing
_SPECIAL_TOKENS = 3  # of each record: [CLS], [SEP], [SEP]
_MAX_UNKNOWN_SHARE = 0.01  # more says that the vocabulary was made for other text
_RANDOM_SHARES = 0.45, 0.55
_CHANCE = 3  # standard errors of a share that chance explains


class Report(NamedTuple):
    """Lines for the user: what was found, what is unusual, and what is wrong."""

    findings: list[str]
    remarks: list[str]
    faults: list[str]


def summarize(
    shards: Sequence[ShardFacts], expectation: Expectation, mask_id: Optional[int], block: str = "#"
) -> Report:
    """The report on a data set; mask_id is that of [MASK], None without a vocabulary. Bars consist of `block`."""
    found = Report([], [], [fault for shard in shards for fault in shard.faults])
    records = [shard.num_records for shard in shards]
    sizes = [shard.num_bytes / 1e6 for shard in shards]
    found.findings.extend(
        (
            f"{len(shards)} shards of {min(sizes):.1f} to {max(sizes):.1f} MB, {sum(records)} records, "
            f"{min(records)} to {max(records)} in a shard",
            f"max_seq_length {expectation.seq_length}, max_predictions_per_seq {expectation.max_predictions}",
        )
    )
    found.remarks.extend(_uneven(shards))
    found.faults.extend(f"{shard.path}: no records" for shard in shards if not shard.num_records and not shard.faults)
    _duplicates(shards, found)
    contents = sum_contents([shard.contents for shard in shards])
    if contents.num_parsed and num_tokens(contents):  # else every record is a fault
        _masking(contents, mask_id, found)
        _next_sentences(contents, found)
        if expectation.unk_id is not None:
            _unknown(contents, found)
        _lengths(contents, expectation, block, found)
    return found


def _uneven(shards: Sequence[ShardFacts]) -> list[str]:
    folders: dict[str, list[int]] = {}
    for shard in shards:
        folders.setdefault(os.path.dirname(shard.path), []).append(shard.num_records)
    return [
        f"{folder}: the largest shard has {max(records)} records, the smallest {min(records)}"
        for folder, records in folders.items()
        if max(records) > 2 * min(records)
    ]


def _duplicates(shards: Sequence[ShardFacts], found: Report) -> None:
    repeated = duplicates.find(shards)
    found.findings.append(str(repeated))
    if repeated.count:
        line = f"{repeated}: {repeated.where}"
        if repeated.are_many:
            found.faults.append(f"{line}; was a shard copied, or made twice?")
        else:
            found.remarks.append(line)
    found.faults.extend(repeated.equal_shards)


def _masking(contents: Contents, mask_id: Optional[int], found: Report) -> None:
    share = contents.num_masked / num_tokens(contents)
    counts = contents.replacement_counts or Counter()
    if mask_id is None:  # no other token replaces so many
        mask_id = counts.most_common(1)[0][0] if counts else -1
    masks = counts[mask_id] / max(1, contents.num_masked)
    kept = contents.num_kept / max(1, contents.num_masked)
    others = max(0.0, 1 - masks - kept)
    found.findings.append(
        f"{share:.1%} of the tokens are to be predicted: {masks:.1%} [MASK] (id {mask_id}), {others:.1%} other tokens, "
        f"{kept:.1%} as they were"
    )
    if not 0.10 <= share <= 0.20:
        found.remarks.append(f"{share:.1%} of the tokens are to be predicted; BERT's recipe has 15 %")
    if max(abs(masks - 0.8), abs(kept - 0.1), abs(others - 0.1)) > 0.03:
        found.remarks.append(
            f"{masks:.0%}, {others:.0%} and {kept:.0%} [MASK], other, unchanged; BERT's recipe is 80, 10, 10"
        )


def _next_sentences(contents: Contents, found: Report) -> None:
    share = contents.num_random_next / contents.num_parsed
    found.findings.append(f"{share:.1%} of the second sentences are random")
    low, high = _RANDOM_SHARES
    by_chance = _CHANCE * 0.5 / contents.num_parsed**0.5  # a few records differ from half by more
    if not low <= share <= high and abs(share - 0.5) > by_chance:
        found.remarks.append(
            f"{share:.1%} of the second sentences are random, BERT's recipe has 50 %; a sentence that fills a record, "
            f"or is alone in its document, always gets a random one"
        )


def _unknown(contents: Contents, found: Report) -> None:
    """[UNK] among the tokens of the text as they were before masking."""
    share = contents.num_unknown / max(1, num_tokens(contents) - _SPECIAL_TOKENS * contents.num_parsed)
    found.findings.append(f"{share:.2%} of the text's tokens are [UNK]")
    if share > _MAX_UNKNOWN_SHARE:
        found.remarks.append(
            f"{share:.2%} of the text's tokens are [UNK], more than {_MAX_UNKNOWN_SHARE:.0%}: the vocabulary lacks "
            f"characters or letter case of this text; make_data --train_vocab makes one from it"
        )


def _lengths(contents: Contents, expectation: Expectation, block: str, found: Report) -> None:
    counts, capacity = contents.length_counts, expectation.seq_length
    lengths = np.repeat(np.arange(len(counts)), counts)
    sample = np.random.default_rng(0).permutation(lengths)[:_PACKED_TOGETHER].tolist()
    packed = pack_rows(sample, capacity)
    gain = len(sample) * capacity / (len(packed.rows) * packed.width)
    padding = 1 - lengths.mean() / capacity
    found.findings.append(f"{padding:.1%} padding; packing saves it and computes {gain:.2f} times fewer tokens")
    found.findings.extend(["tokens in a record:", *histogram.bars(counts, block)])
