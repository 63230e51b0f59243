"""Damaged and hostile shards, records, index tables, vocabularies and manifests are read right or refused in a line."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.check_data import inspection, shard_facts
from bert_pretrain.config.training import DataConfig
from bert_pretrain.data import schema, vocab
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import Limits, check_examples, explain_input_error
from bert_pretrain.data.shards import index_tables, shard_files, tfrecord
from bert_pretrain.data.shards.shard_files import find_shards
from bert_pretrain.data.shards.shard_index import ShardIndex
from tests.fuzz.examples import assert_is_one_line, fuzz
from tests.train.small import MODEL, random_examples

_MAX_MEMORY = 16 << 20  # bytes, for inputs of a few kilobytes
_S, _P = 16, 3
LIMITS = Limits(MODEL.vocab_size, MODEL.type_vocab_size)
RECORDS = schema.encode_examples(random_examples(np.random.default_rng(0), 4, seq_length=_S, max_predictions=_P))
SHARD = b"".join(map(tfrecord.frame_record, RECORDS))

# A feature's name that becomes invalid UTF-8, which protobuf refuses and TensorFlow's parser takes.
_NO_UTF8_YET = "~~~~"

# A change of bytes: at which share of them, how many are taken away, what stands there instead.
changes = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 2, 8, 12, 10**9]), st.binary(max_size=16)), max_size=3
)
headers = st.integers(0, 2**64 - 1).map(tfrecord.record_header)  # with a right CRC
int64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, _S, MODEL.vocab_size, 2**31, 2**32 + 7, -1])
floats = st.floats(width=32) | st.just(1.0)


def changed(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for share, removed, added in edits:
        at = int(share * len(content))
        content = content[:at] + added + content[at + removed :]
    return content


KINDS = ["value", "value", "value", "missing", "renamed", "integers", "floats", "bytes", "added"]


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A sound record in which features are missing, of another type or length, or hold other values."""
    example = tf.train.Example.FromString(draw(st.sampled_from(RECORDS)))
    features = example.features.feature
    for name in draw(st.lists(st.sampled_from(sorted(features)), max_size=2, unique=True)):
        kind = draw(st.sampled_from(KINDS))
        stored = features[name]
        values = stored.float_list.value if name == "masked_lm_weights" else stored.int64_list.value
        if kind == "value":
            values[draw(st.integers(0, len(values) - 1))] = draw(floats if name == "masked_lm_weights" else int64)
        elif kind == "integers":
            stored.int64_list.value[:] = draw(st.lists(int64, max_size=_S + 1))
        elif kind == "floats":
            stored.float_list.value[:] = draw(st.lists(floats, max_size=_S + 1))
        elif kind == "bytes":
            stored.bytes_list.value[:] = draw(st.lists(st.binary(), max_size=2))
        elif kind == "added":
            features[_NO_UTF8_YET].CopyFrom(stored)
        else:
            if kind == "renamed":
                features[draw(st.text(max_size=5))].CopyFrom(stored)
            del features[name]
    content = example.SerializeToString().replace(_NO_UTF8_YET.encode(), b"\xff" * len(_NO_UTF8_YET))
    return changed(content, draw(changes) if draw(st.booleans()) else [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def or_one_line(function: Callable[[], object]) -> object:
    """What function returns, or None where it raises a ValueError of one line; any other exception is a failure."""
    try:
        return function()
    except ValueError as error:
        assert_is_one_line(error)
        return None


@fuzz()
@given(st.one_of(st.binary(), st.builds(changed, st.just(SHARD), changes)), st.none() | headers, st.floats(0, 1))
def test_a_damaged_shard_is_read_whole_or_refused(folder: Path, content: bytes, header: bytes, place: float) -> None:
    """What is read is, framed again, the very file."""
    if header is not None:
        at = len(tfrecord.frame_record(RECORDS[0])) if place < 0.5 else int(place * len(content))
        content = content[:at] + header + content[at + len(header) :]
    (folder / "shard").write_bytes(content)

    def read() -> list[bytes]:
        index = ShardIndex(find_shards([str(folder)]))
        return index.read(np.arange(index.num_records))

    tracemalloc.start()
    found = or_one_line(read)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _MAX_MEMORY
    assert found is None or b"".join(map(tfrecord.frame_record, found)) == content


def trained_on(folder: Path) -> object:
    """The rows that training would make of a folder's records."""
    source = Source.open([str(folder)], DataConfig(), LIMITS)
    numbers = np.arange(source.index.num_records)
    names = source.index.names(numbers)
    try:
        parsed = schema.parse_examples(tf.constant(source.index.read(numbers)), tf.constant(names), *source.lengths)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise explain_input_error(error) or error from None
    examples = schema.Examples(*(column.numpy() for column in parsed))
    check_examples(examples, LIMITS, names)
    return build_batch(examples, 2, True)


@fuzz()
@given(st.lists(records(), min_size=1, max_size=3))
def test_records_of_any_contents_are_trained_on_or_refused(folder: Path, stored: list[bytes]) -> None:
    """And check_data names a fault of what is refused."""
    tfrecord.write_shard(str(folder / "shard"), stored)
    batch = or_one_line(lambda: trained_on(folder))
    expectation = shard_facts.Expectation(_S, _P, MODEL.vocab_size, None, None)
    facts = inspection.inspect_shard(
        shard_facts.ShardToInspect(str(folder / "shard"), expectation, 0), lambda share: None
    )
    for fault in facts.faults:
        assert_is_one_line(ValueError(fault))
    assert batch is not None or facts.faults
    if batch is not None:
        assert batch.token_ids.min() >= 0 and batch.token_ids.max() < MODEL.vocab_size
        assert batch.masked_ids.min(initial=0) >= 0 and batch.masked_ids.max(initial=0) < MODEL.vocab_size
        assert batch.masked_positions.min(initial=0) >= 0
        assert batch.masked_positions.max(initial=0) < batch.token_ids.size


@fuzz()
@given(st.one_of(st.binary(), st.none()), changes)
def test_a_damaged_index_table_is_never_used(folder: Path, anything: bytes, edits: list) -> None:
    (folder / "shard").write_bytes(SHARD)
    shard, table = index_tables.scan_shard(str(folder / "shard"))
    index_tables.keep_table(shard, table)
    path = index_tables.table_folder() / shard.key
    path.write_bytes(changed(path.read_bytes(), edits) if anything is None else anything)
    assert ShardIndex([str(folder / "shard")]).read(np.arange(len(RECORDS))) == RECORDS


@fuzz()
@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.builds(changed, st.just("".join(f"{entry}\r\n" for entry in vocab.SPECIAL_TOKENS).encode()), changes),
    )
)
def test_any_bytes_are_a_vocabulary_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "vocab.txt"
    path.write_bytes(content)
    found = or_one_line(lambda: vocab.load_vocabulary(str(path)))
    if found is not None:
        assert all(found.entries[found.id(token)] == token for token in vocab.SPECIAL_TOKENS[1:])
        assert len(found.entries) == content.count(b"\n") + (not content.endswith(b"\n"))


def _manifest_of(folder: Path) -> tuple[dict[str, object], ShardIndex]:
    (folder / "shard").write_bytes(SHARD)
    index = ShardIndex([str(folder / "shard")])
    sound = shard_files.Manifest(len(RECORDS), _S, _P, 99, index.fingerprint, {"shard": len(RECORDS)})
    shard_files.write_manifest(str(folder), sound)
    return sound, index


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


fields = st.sampled_from([*shard_files.Manifest._fields, "more"])


@fuzz()
@given(st.dictionaries(fields, json_values, max_size=2), changes)
def test_a_changed_manifest_is_the_same_or_refused(folder: Path, values: dict, edits: list) -> None:
    sound, index = _manifest_of(folder)
    path = folder / "manifest.json"
    content = json.dumps({**sound._asdict(), **values}).encode()
    path.write_bytes(changed(content, edits))

    def enforce() -> bool:
        shard_files.enforce_manifest(str(folder), index.files, _S, _P)
        return True

    if or_one_line(enforce):
        found = shard_files.read_manifest(str(folder))
        assert (found.fingerprint, found.shards) == (sound.fingerprint, sound.shards)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000])
def test_deep_and_long_json_is_no_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
        shard_files.read_manifest(str(folder))


def test_a_large_file_is_no_vocabulary(folder: Path) -> None:
    path = folder / "vocab.txt"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(ValueError, match="is no vocabulary: it has more than 64 MiB"):
        vocab.load_vocabulary(str(path))
