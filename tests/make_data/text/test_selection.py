"""Which documents are held out."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bert_pretrain.make_data.text import selection


def test_mlperfs_rule_is_the_published_one() -> None:
    chosen = [selection.hold_out_by_mlperf(number, 3, 10, 50, "x") for number in range(3)]
    assert [len(part) for part in chosen] == [3, 3, 4]
    rng = random.Random(12345 + 13 * 2)
    assert {int(rng.random() * 50) for _ in range(4)} == set(chosen[2].tolist())
    with pytest.raises(
        ValueError, match="x: 3 articles, and 5 of each file are to be held out; lower --num_held_out 5"
    ):
        selection.hold_out_by_mlperf(0, 1, 5, 3, "x")


def test_held_out_documents_by_size() -> None:
    rng = np.random.default_rng(0)
    keys, num_bytes = rng.integers(0, 2**63, 1000).astype(np.uint64), rng.integers(100, 10_000, 1000)
    chosen = selection.hold_out_by_size(keys, num_bytes, 10_000).whole
    assert 80 <= len(chosen) <= 100 and num_bytes[chosen].sum() <= num_bytes.sum() / 10
    assert len(selection.hold_out_by_size(keys, num_bytes, 7).whole) == 7
    assert len(selection.hold_out_by_size(keys, num_bytes, 0).whole) == 0
    order = rng.permutation(1000)  # the order of documents, and so the names of files, is without influence
    again = selection.hold_out_by_size(keys[order], num_bytes[order], 10_000).whole
    assert set(keys[order][again]) == set(keys[chosen])


@pytest.mark.parametrize(
    "sizes, whole, divided",
    [([500, 40], [1], None), ([500, 90], [1], None), ([500, 300], [], 0), ([500], [], 0)],
)
def test_little_text_is_held_out_of_few_documents(sizes: list[int], whole: list[int], divided: int) -> None:
    drawn = selection.hold_out_by_size(np.arange(len(sizes), dtype=np.uint64), np.array(sizes), 9)
    assert (drawn.whole.tolist(), drawn.divided) == (whole, divided)


@pytest.mark.parametrize("num_sentences, end", [(2, 1), (9, 8), (30, 27)])
def test_at_least_a_sentence_of_a_divided_document_is_held_out(num_sentences: int, end: int) -> None:
    assert selection.end_of_training(num_sentences) == end
