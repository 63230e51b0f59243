"""Inspects one shard: framing and CRC of every record, the contents of all records or of a sample."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import Counter
from typing import Optional

import numpy as np
import tensorflow as tf
from crc32c import crc32c

from bert_pretrain.check_data.shard_facts import Contents, Expectation, ShardFacts, ShardToInspect, ShownExample
from bert_pretrain.data import schema
from bert_pretrain.data.schema import Examples, Limits, validation_rules
from bert_pretrain.data.shards import index_tables, offsets, tfrecord
from bert_pretrain.system.files import open_regular
from bert_pretrain.system.worker_pool import ReportProgress

_RECORDS_AT_ONCE = 1000
_ANY_VOCAB_SIZE = np.iinfo(np.int32).max
_NUM_SEGMENTS = 2
_MAX_FAULTS = 3  # named in each shard


def inspect_shard(task: ShardToInspect, report: ReportProgress) -> ShardFacts:
    """Reads a whole shard. Faults become lines of the result; nothing is raised."""
    try:
        shard, table = index_tables.scan_shard(task.path)
    except (ValueError, OSError) as error:
        return ShardFacts(task.path, 0, 0, np.zeros(0, np.uint64), Contents(), [str(error)])
    with contextlib.suppress(OSError):  # where the table cannot be kept, training scans the shard again
        index_tables.keep_table(shard, table)
    num_records = len(table) - 1
    hashes, faults = _hash_records(task.path, table, report)
    facts = ShardFacts(task.path, int(table[-1]), num_records, hashes, Contents(), faults)
    return facts if faults or not num_records else _parse_records(task, table, facts)


def read_first_lengths(path: str) -> tuple[int, int]:
    """S and P of a shard's first record. ValueError if that cannot be read."""
    try:
        with open_regular(path, "rb") as file:
            end = tfrecord.HEADER.unpack(file.read(tfrecord.HEADER.size))[0] + tfrecord.FRAME_SIZE
            if end > (size := os.fstat(file.fileno()).st_size):
                raise ValueError(f"{path}:0: {offsets.cut_short(size)}")
        (record,) = _read_records(path, np.array([0, end]), np.arange(1))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    return schema.record_lengths(record, f"{path}:0")


def _hash_records(path: str, table: np.ndarray, report: ReportProgress) -> tuple[np.ndarray, list[str]]:
    """A 64-bit hash of each record, from two CRCs; a fault for each record whose stored CRC differs."""
    bounds = table.tolist()
    hashes = np.zeros(len(bounds) - 1, np.uint64)
    faults: list[str] = []
    with open_regular(path, "rb") as file:
        for number, (begin, end) in enumerate(zip(bounds, bounds[1:])):
            frame = file.read(end - begin)
            content = frame[tfrecord.HEADER.size : -tfrecord.FOOTER.size]
            crc = crc32c(content)
            if frame[-tfrecord.FOOTER.size :] != tfrecord.FOOTER.pack(tfrecord.masked_crc(crc)):
                faults.append(f"{path}:{begin}: record {number} is damaged; {offsets.COPY_AGAIN}")
                if len(faults) == _MAX_FAULTS:
                    break
            hashes[number] = crc << 32 | zlib.crc32(content)
            if number % _RECORDS_AT_ONCE == 0:
                report(min(_RECORDS_AT_ONCE, len(hashes) - number) / len(hashes))
    return hashes, faults


def _parse_records(task: ShardToInspect, table: np.ndarray, facts: ShardFacts) -> ShardFacts:
    """The facts with what the sample of records contains."""
    size = min(task.sample_size or facts.num_records, facts.num_records)
    chosen = np.arange(size) * facts.num_records // size
    is_shown = np.zeros(size, bool)
    is_shown[np.arange(min(task.num_shown, size)) * size // max(1, min(task.num_shown, size))] = True
    total, faults = Contents(length_counts=np.zeros(task.expectation.seq_length + 1, np.int64)), facts.faults
    shown: list[ShownExample] = []
    for start in range(0, size, _RECORDS_AT_ONCE):
        numbers = chosen[start : start + _RECORDS_AT_ONCE]
        records = _read_records(task.path, table, numbers)
        names = [f"{task.path}:{table[number]}" for number in numbers.tolist()]
        if not start and (fault := _explain(records[0], names[0], task.expectation)):
            faults.append(fault)  # training reads the lengths of this record; TensorFlow's parser takes more than that
            break
        examples = _parse_examples(records, names, task.expectation, faults)
        if examples is None:
            break
        total = _add(total, examples, task.expectation.unk_id)
        shown += [
            _shown_example(examples, row, names[row]) for row in np.flatnonzero(is_shown[start:][: len(names)]).tolist()
        ]
        faults += _content_faults(examples, names, task.expectation)[: _MAX_FAULTS - len(faults)]
        if len(faults) >= _MAX_FAULTS:
            break
    return facts._replace(contents=total, faults=faults, shown=shown)


def _shown_example(examples: Examples, row: int, name: str) -> ShownExample:
    used = examples.masked_lm_weights[row] > 0
    labels = zip(examples.masked_lm_positions[row][used].tolist(), examples.masked_lm_ids[row][used].tolist())
    tokens = examples.input_ids[row][examples.input_mask[row] != 0]
    is_random_next = bool(examples.next_sentence_labels[row] == 1)
    is_single = not (is_random_next or examples.segment_ids[row].any())
    return ShownExample(name, tokens.tolist(), dict(labels), is_random_next, is_single)


def _read_records(path: str, table: np.ndarray, numbers: np.ndarray) -> list[bytes]:
    records = []
    with open_regular(path, "rb") as file:
        for number in numbers.tolist():
            file.seek(int(table[number]) + tfrecord.HEADER.size)
            records.append(file.read(int(table[number + 1] - table[number]) - tfrecord.FRAME_SIZE))
    return records


def _parse_examples(
    records: list[bytes], names: list[str], expectation: Expectation, faults: list[str]
) -> Optional[Examples]:
    """The parsed records, or None after adding the reason to faults."""
    lengths = expectation.seq_length, expectation.max_predictions
    try:
        return schema.parse_examples(tf.constant(records), schema.encode_names(names), *lengths).numpy()
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter where the message quotes a record's bytes
        explained = (fault for record, name in zip(records, names) if (fault := _explain(record, name, expectation)))
        faults.append(next(explained, f"{names[0]}: this record or one of the next {len(names) - 1} cannot be parsed"))
        return None


def _explain(record: bytes, name: str, expectation: Expectation) -> Optional[str]:
    """What is wrong with a record that TensorFlow or protobuf does not parse; None if both do."""
    expected = expectation.seq_length, expectation.max_predictions
    try:
        found = schema.record_lengths(record, name)
    except ValueError as error:
        return str(error)
    if found != expected:
        return (
            f"{name}: {found[0]} tokens and {found[1]} prediction slots, but {expected[0]} and {expected[1]} "
            f"are expected; all shards must be made with the same flags"
        )
    return None


def _add(total: Contents, examples: Examples, unk_id: Optional[int]) -> Contents:
    slots = examples.masked_lm_weights > 0
    positions = np.clip(examples.masked_lm_positions, 0, examples.input_ids.shape[1] - 1)
    replacements = np.take_along_axis(examples.input_ids, positions, axis=1)[slots]
    masked_ids = examples.masked_lm_ids[slots]
    is_kept = replacements == masked_ids
    num_unknown = 0
    if unk_id is not None:  # as before masking: not what replaces a word, but the word
        unknown = np.count_nonzero((examples.input_ids == unk_id) & (examples.input_mask != 0))
        num_unknown = int(unknown - np.count_nonzero(replacements == unk_id) + np.count_nonzero(masked_ids == unk_id))
    lengths = np.count_nonzero(examples.input_mask, axis=1)
    return Contents(
        total.num_parsed + len(lengths),
        total.length_counts + np.bincount(lengths, minlength=len(total.length_counts)),
        total.num_random_next + int((examples.next_sentence_labels == 1).sum()),
        total.num_masked + len(replacements),
        total.num_kept + int(is_kept.sum()),
        total.replacement_counts + Counter(replacements[~is_kept].tolist()),
        max(total.max_id, int(examples.input_ids.max()), int(examples.masked_lm_ids.max())),
        total.num_unknown + num_unknown,
        total.num_unmasked + int(np.count_nonzero(~slots.any(axis=1))),
        total.num_one_segment + int(np.count_nonzero(~(examples.segment_ids != 0).any(axis=1))),
    )


def _content_faults(examples: Examples, names: list[str], expectation: Expectation) -> list[str]:
    """A line for each kind of fault, naming the first record that has it."""
    vocab_size = _ANY_VOCAB_SIZE if expectation.vocab_size is None else expectation.vocab_size
    broken = [rule for rule in validation_rules(examples, Limits(vocab_size, _NUM_SEGMENTS)) if rule.broken.any()]
    kinds = _structure_faults(examples)
    if expectation.cls_id is not None and expectation.sep_id is not None:
        kinds.update(_special_token_faults(examples, expectation.cls_id, expectation.sep_id))
    lines = [f"{names[int(np.argmax(bad))]}: {kind}" for kind, bad in kinds.items() if bad.any()]
    return [rule.describe(names) for rule in broken] + lines


def _structure_faults(examples: Examples) -> dict[str, np.ndarray]:
    """Kind -> which of the examples [E] have that fault: [CLS] A [SEP] B [SEP], masked positions in order."""
    segments, positions = examples.segment_ids, examples.masked_lm_positions
    lengths = np.count_nonzero(examples.input_mask, axis=1)
    is_token = np.arange(segments.shape[1]) < lengths[:, None]
    is_used = examples.masked_lm_weights > 0
    both_used = is_used[:, 1:] & is_used[:, :-1]
    return {
        "fewer than three tokens": lengths < 3,
        "segment_ids are not zeros and then ones": _in_row((np.diff(segments, axis=1) < 0) & is_token[:, 1:]),
        "masked positions repeat or do not ascend": _in_row((np.diff(positions, axis=1) <= 0) & both_used),
    }


def _special_token_faults(examples: Examples, cls_id: int, sep_id: int) -> dict[str, np.ndarray]:
    """Kind -> which of the examples [E] have [CLS] or [SEP] in a wrong place."""
    ids = examples.input_ids
    rows, last = np.arange(len(ids)), np.maximum(np.count_nonzero(examples.input_mask, axis=1) - 1, 0)
    first_b, has_b = np.argmax(examples.segment_ids == 1, axis=1), _in_row(examples.segment_ids == 1)
    is_special = np.isin(examples.masked_lm_ids, [cls_id, sep_id]) & (examples.masked_lm_weights > 0)
    return {
        "the first token is not [CLS]": ids[:, 0] != cls_id,
        "the last token is not [SEP]": ids[rows, last] != sep_id,
        "no [SEP] ends the first segment": has_b & (ids[rows, np.maximum(first_b - 1, 0)] != sep_id),
        "[CLS] or [SEP] is masked": _in_row(is_special),
    }


def _in_row(places: np.ndarray) -> np.ndarray:
    """[E] bool: the rows of places [E, X] that have one."""
    return np.asarray(places.any(axis=1))
