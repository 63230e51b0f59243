"""A sample of a data set, judged before the first update."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.config.training import DataConfig
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.dynamic_masking import DynamicMasking
from bert_pretrain.data.findings import Severity
from bert_pretrain.data.masking import MaskingRule
from bert_pretrain.data.schema import Examples, Limits, encode_examples
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.train import start_checks

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(95))]
UNK, CLS, SEP, MASK = 1, 2, 3, 4


def examples_of(count: int) -> Examples:
    """[CLS] ten words [SEP] ten words [SEP]; three of them masked."""
    random = np.random.default_rng(0)
    ids = random.integers(5, 100, (count, 23)).astype(np.int32)
    ids[:, [0, 11, 22]] = CLS, SEP, SEP
    positions = np.tile(np.array([2, 5, 15], np.int32), (count, 1))
    labels = np.take_along_axis(ids, positions, axis=1)
    np.put_along_axis(ids, positions, MASK, axis=1)
    segments = np.tile((np.arange(23) > 11).astype(np.int32), (count, 1))
    weights = np.ones((count, 3), np.float32)
    return Examples(
        ids, np.ones_like(ids), segments, positions, labels, weights, (np.arange(count) % 2).astype(np.int32)
    )


def source_of(folder: Path, examples: Examples) -> Source:
    write_shard(str(folder / "part"), encode_examples(examples))
    return Source.open([str(folder)], DataConfig(), Limits(100, 2))


def vocabulary_in(folder: Path, entries: list[str]) -> str:
    path = folder / "vocab.txt"
    path.write_text("\n".join(entries) + "\n")
    return str(path)


@pytest.mark.parametrize("count", [1, 7, 8, 300, 5000])
def test_a_sample_is_spread_and_read_as_training_reads_it(tmp_path: Path, count: int) -> None:
    examples = examples_of(count)
    sample = source_of(tmp_path, examples).read_sample()
    assert len(np.unique(sample.numbers)) == len(sample.numbers) == len(sample.names) == min(count, 256)
    assert sample.numbers[0] == 0 and sample.numbers[-1] >= count - 1 - count // 32
    for expected, found in zip(examples, sample.examples):
        np.testing.assert_array_equal(found, expected[sample.numbers])
        assert found.dtype == expected.dtype


def test_dynamic_masking_is_judged_by_the_masks_that_it_draws(tmp_path: Path) -> None:
    examples = examples_of(40)
    source = source_of(tmp_path, examples._replace(masked_lm_weights=np.zeros_like(examples.masked_lm_weights)))
    (fault,) = [one for one in start_checks.judge_source(source, None, None) if one.severity is Severity.FAULT]
    assert "none of the 40 records has a token to predict" in fault.text
    rule = MaskingRule(0.15, 3, MASK, np.arange(100, dtype=np.int32))
    drawn = DynamicMasking(rule, CLS, SEP, 100, seed=0)
    assert not [one for one in start_checks.judge_source(source, drawn, None) if one.severity is Severity.FAULT]
    # One word of twenty pieces, of which three could be masked.
    pieces = np.ones(100, bool)
    whole = drawn._replace(rule=rule._replace(continues_word=pieces))
    assert "has a token to predict" in start_checks.judge_source(source, whole, None)[0].text


@pytest.mark.parametrize(
    "entries, severity",
    [
        (ENTRIES, None),
        (ENTRIES[:50], Severity.FAULT),  # ids beyond it
        ([ENTRIES[0], *reversed(ENTRIES[1:])], Severity.FAULT),  # the same size, other special tokens
        ([*ENTRIES, "more"], Severity.WARNING),
    ],
)
def test_a_vocabulary_of_other_data_is_found(tmp_path: Path, entries: list[str], severity: Severity) -> None:
    (tmp_path / "shards").mkdir()
    source = source_of(tmp_path / "shards", examples_of(40))
    found = start_checks.judge_source(source, None, vocabulary_in(tmp_path, entries))
    assert [one.severity for one in found if "vocab.txt" in one.text] == ([severity] if severity else [])


def test_unknown_tokens_are_counted_before_masking(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    examples = examples_of(40)
    examples.masked_lm_ids[:, 0] = UNK
    source = source_of(tmp_path / "shards", examples)
    (found,) = [
        one for one in start_checks.judge_source(source, None, vocabulary_in(tmp_path, ENTRIES)) if "UNK" in one.text
    ]
    assert found.text.startswith("5.00%")
