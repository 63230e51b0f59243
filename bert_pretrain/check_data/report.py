"""The report on a data set, from the facts about its shards: lines, a picture of the lengths, and examples as text.

data/findings.py judges the numbers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.check_data.shard_facts import (
    Contents,
    Expectation,
    ShardFacts,
    ShownExample,
    count_tokens,
    sum_contents,
)
from bert_pretrain.data.findings import (
    Finding,
    RecordStatistics,
    Severity,
    judge_duplicates,
    judge_records,
)
from bert_pretrain.data.packing import pack_rows
from bert_pretrain.system.files import atomic_write, require_writable

_PACKED_TOGETHER = 192  # examples of an update, to estimate the gain of packing
_MAX_SHARDS = 3  # named in a line
_NUM_BINS = 16  # of the histogram
_BAR_WIDTH = 50  # characters of the longest bar
_PICTURE_FORMATS = (".png", ".svg", ".pdf")
_CONTINUATION = "##"
_NEVER_CONTINUED = ("[CLS]", "[SEP]")  # a segment whose beginning was cut off may begin within a word


class DataReport(NamedTuple):
    """Lines of numbers for the user, and what is judged of them."""

    lines: list[str]
    findings: list[Finding]

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of a severity."""
        return [finding for finding in self.findings if finding.severity is severity]


def summarize_shards(
    shards: Sequence[ShardFacts], expectation: Expectation, mask_id: Optional[int], block: str = "#"
) -> DataReport:
    """The report on a data set; mask_id is that of [MASK], None without a vocabulary. Bars consist of `block`."""
    report = DataReport([], [Finding(Severity.FAULT, fault) for shard in shards for fault in shard.faults])
    records = [shard.num_records for shard in shards]
    sizes = [shard.num_bytes / 1e6 for shard in shards]
    report.lines.extend(
        (
            f"{len(shards)} shards of {min(sizes):.1f} to {max(sizes):.1f} MB, {sum(records)} records, "
            f"{min(records)} to {max(records)} in a shard",
            f"max_seq_length {expectation.seq_length}, max_predictions_per_seq {expectation.max_predictions}",
        )
    )
    report.findings.extend(_uneven_folders(shards))
    report.findings.extend(
        Finding(Severity.FAULT, f"{shard.path}: no records", "remove it, or make it again")
        for shard in shards
        if not shard.num_records and not shard.faults
    )
    _add_duplicates(shards, report)
    contents = sum_contents([shard.contents for shard in shards])
    if contents.num_parsed and count_tokens(contents):  # else every record is a fault
        if mask_id is None:  # no other token replaces so many
            counts = contents.replacement_counts
            mask_id = counts.most_common(1)[0][0] if counts else -1
        statistics = contents.statistics(mask_id, expectation.unk_id is not None)
        report.lines.extend(_statistics_lines(statistics, mask_id))
        report.lines.extend(_length_lines(contents, expectation, block))
        report.findings.extend(judge_records(statistics))
    return report


def _uneven_folders(shards: Sequence[ShardFacts]) -> list[Finding]:
    folders: dict[str, list[int]] = {}
    for shard in shards:
        folders.setdefault(os.path.dirname(shard.path), []).append(shard.num_records)
    return [
        Finding(
            Severity.NOTE,
            f"{folder}: the largest shard has {max(records)} records, the smallest {min(records)}",
            "make_data --num_shards divides the text evenly",
        )
        for folder, records in folders.items()
        if max(records) > 2 * min(records)
    ]


def _add_duplicates(shards: Sequence[ShardFacts], report: DataReport) -> None:
    duplicates, num_records = find_duplicate_records(shards), sum(shard.num_records for shard in shards)
    share = duplicates.count / max(1, num_records)
    report.lines.append(f"{duplicates.count} of {num_records} records ({share:.2%}) repeat others")
    report.findings.extend(judge_duplicates(duplicates.count, num_records, duplicates.where))
    report.findings.extend(Finding(Severity.FAULT, line, "remove one of them") for line in duplicates.equal_shards)


def _statistics_lines(found: RecordStatistics, mask_id: int) -> Iterator[str]:
    assert found.mask_tokens is not None and found.kept_tokens is not None, "of contents, whose predictions are known"
    masks, kept = (number / max(1, found.predictions) for number in (found.mask_tokens, found.kept_tokens))
    yield (
        f"{found.predictions / found.tokens:.1%} of the tokens are to be predicted: {masks:.1%} [MASK] (id {mask_id}), "
        f"{max(0.0, 1 - masks - kept):.1%} other tokens, {kept:.1%} as they were"
    )
    if found.all_single:
        yield "single sequences: no record has a second sentence"
    else:
        yield f"{found.random_next / found.records:.1%} of the second sentences are random"
    if found.unknown is not None:
        yield f"{found.unknown / max(1, found.text_tokens):.2%} of the text's tokens are [UNK]"


def _length_lines(contents: Contents, expectation: Expectation, block: str) -> Iterator[str]:
    counts, capacity = contents.length_counts, expectation.seq_length
    lengths = np.repeat(np.arange(len(counts)), counts)
    sample = np.random.default_rng(0).permutation(lengths)[:_PACKED_TOGETHER].tolist()
    packed = pack_rows(sample, capacity)
    gain = len(sample) * capacity / (len(packed.rows) * packed.width)
    padding = 1 - lengths.mean() / capacity
    yield f"{padding:.1%} padding; packing saves it and computes {gain:.2f} times fewer tokens"
    yield "tokens in a record:"
    yield from histogram_bars(counts, block)


class DuplicateRecords(NamedTuple):
    """Records that are there more than once, and where."""

    count: int  # records that repeat an earlier one
    where: str  # the shards with most of them, and one example; empty if there are none
    equal_shards: list[str]  # a line for each shard that has the records of an earlier one


def find_duplicate_records(shards: Sequence[ShardFacts]) -> DuplicateRecords:
    """Compares the hashes of all records."""
    hashes = np.concatenate([shard.record_hashes for shard in shards])
    count = len(hashes) - len(np.unique(hashes))
    return DuplicateRecords(count, _where_duplicates(shards, hashes) if count else "", _equal_shards(shards))


def _where_duplicates(shards: Sequence[ShardFacts], hashes: np.ndarray) -> str:
    ends = np.cumsum([len(shard.record_hashes) for shard in shards])
    order = np.argsort(hashes, kind="stable")  # within equal hashes, the first record is the original
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
    counts = np.bincount(np.searchsorted(ends, order[repeats], side="right"), minlength=len(shards))
    most = [number for number in np.argsort(-counts, kind="stable").tolist() if counts[number]]
    named = ", ".join(f"{counts[number]} in {shards[number].path}" for number in most[:_MAX_SHARDS])
    more = f" and others in {len(most) - _MAX_SHARDS} more shards" if len(most) > _MAX_SHARDS else ""
    first = repeats[np.argmin(order[repeats])]
    later, earlier = int(order[first]), int(order[first - 1])
    return f"{named}{more}; for example, {_name_record(shards, ends, later)} is {_name_record(shards, ends, earlier)}"


def _name_record(shards: Sequence[ShardFacts], ends: np.ndarray, record: int) -> str:
    shard = int(np.searchsorted(ends, record, side="right"))
    return f"record {record - (ends[shard] - len(shards[shard].record_hashes))} of {shards[shard].path}"


def _equal_shards(shards: Sequence[ShardFacts]) -> list[str]:
    first: dict[bytes, str] = {}
    found = []
    for shard in shards:
        if shard.num_records:
            key = hashlib.sha256(np.sort(shard.record_hashes).tobytes()).digest()
            if key in first:
                found.append(f"{shard.path}: the same records as {os.path.basename(first[key])}")
            first.setdefault(key, shard.path)
    return found


def histogram_bars(length_counts: np.ndarray, block: str) -> list[str]:
    """A line for each range of lengths: '  97-112   34% ' and a bar of `block` characters.

    length_counts [S+1] is the number of records of each length.
    """
    edges, shares = _shares_of_ranges(length_counts)
    labels = [f"{low + 1}-{high}" if low + 1 < high else str(high) for low, high in zip(edges, edges[1:])]
    width = max(map(len, labels))
    largest = max(shares)
    return [
        f"  {label:>{width}} {share:6.1%} {block * round(_BAR_WIDTH * share / largest)}".rstrip()
        for label, share in zip(labels, shares)
    ]


def _shares_of_ranges(length_counts: np.ndarray) -> tuple[list[int], list[float]]:
    """Edges of the ranges (low, high], and the share of the records in each."""
    capacity = len(length_counts) - 1
    edges = np.unique(np.linspace(0, capacity, min(_NUM_BINS, capacity) + 1).astype(int))
    counts = np.diff(np.cumsum(length_counts)[edges])
    counts[0] += length_counts[0]  # a record without tokens is a fault, and is counted nevertheless
    return edges.tolist(), (counts / length_counts.sum()).tolist()


def check_histogram_path(path: str) -> None:
    """ValueError if a picture cannot be drawn at `path`; asked before the work."""
    if not path.lower().endswith(_PICTURE_FORMATS):
        raise ValueError(f"--histogram: {path} must end in {', '.join(_PICTURE_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--histogram needs matplotlib, which is not installed; bash init_tf.sh --plot installs it")
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise ValueError(f"--histogram: {path} cannot be written; give a file in a directory that exists")
    require_writable("--histogram", path)


def draw_histogram(length_counts: np.ndarray, path: str) -> None:
    """Writes a picture of the lengths, complete or not at all. ValueError if it cannot be written.

    length_counts [S+1] is the number of records of each length. The end of `path` chooses the format.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its first import tells that it makes a cache of fonts
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.bar(range(len(length_counts)), length_counts / length_counts.sum(), width=1.0, color="#1b6ca8")
    axes.set_xlabel("tokens in a record, without padding")
    axes.set_ylabel("share of the records")
    axes.set_xlim(0, len(length_counts))
    axes.set_title(f"{int(length_counts.sum())} records of at most {len(length_counts) - 1} tokens", loc="left")
    figure.tight_layout()
    try:
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format=os.path.splitext(path)[1][1:].lower())
    except OSError as error:
        raise ValueError(f"--histogram: {path} cannot be written ({error.strerror})") from None
    finally:
        pyplot.close(figure)


def example_lines(shown: ShownExample, entries: Sequence[str], width: int) -> list[str]:
    """A heading, and the text in lines of at most `width` characters."""
    second = "the second sentence is random" if shown.is_random_next else "the second sentence follows the first"
    if shown.is_single:
        second = "a single sequence"
    wrapped = textwrap.wrap(
        example_text(shown, entries), max(40, width), initial_indent="    ", subsequent_indent="    "
    )
    return [f"example {shown.name}, {second}:", *wrapped]


def example_text(shown: ShownExample, entries: Sequence[str]) -> str:
    """'[CLS] the [MASK:cat] sat [SEP] on [mat:it] [SEP]'; [x:y] is x in the input where y is to be predicted."""
    words: list[str] = []
    for column, token in enumerate(shown.token_ids):
        piece = original = _entry(token, entries)
        written = piece
        if column in shown.labels:
            original = _entry(shown.labels[column], entries)
            written = f"[{'MASK' if piece == '[MASK]' else piece}:{original}]"
        continues = original.startswith(_CONTINUATION) and len(original) > len(_CONTINUATION)
        if continues and words and words[-1] not in _NEVER_CONTINUED:
            words[-1] += written[len(_CONTINUATION) :] if written == piece else written
        else:
            words.append(written)
    return " ".join(words)


def _entry(token: int, entries: Sequence[str]) -> str:
    """An entry of the vocabulary; a number that is in none is written as such, and so are control characters."""
    if not 0 <= token < len(entries):
        return f"[id {token}]"
    entry = entries[token]
    return entry if entry.isprintable() else ascii(entry)[1:-1]
