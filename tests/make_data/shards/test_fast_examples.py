"""Pairs and single sequences of fast mode, and that it writes no record twice for one block of text."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.data.masking import MaskingRule
from bert_pretrain.data.shards.shard_index import ShardIndex
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.shards import build_shards, fast_examples
from bert_pretrain.make_data.shards.exact_examples import ExactExamples, ExactRule
from bert_pretrain.make_data.shards.fast_examples import RepeatedRecords, cut_single_sequences, draw_pairs
from bert_pretrain.make_data.shards.instances import Pairs, TokenizedText

CONFIG = ExampleConfig(max_seq_length=64, max_predictions_per_seq=10, dupe_factor=40)


def make_text(sentence_lengths):
    """Token ids that count upwards over a list of documents, each a list of sentence lengths."""
    flat = [length for document in sentence_lengths for length in document]
    return TokenizedText(
        np.arange(100, 100 + sum(flat), dtype=np.int32),
        np.append(0, np.cumsum(flat, dtype=np.int64)),
        np.append(0, np.cumsum([len(document) for document in sentence_lengths], dtype=np.int64)),
    )


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(0)
    return make_text([rng.integers(1, 40, rng.integers(1, 30)).tolist() for _ in range(400)])


def test_pairs_are_ranges_of_one_document_each_and_fit(text):
    pairs = draw_pairs(text, 64, 0.1, 3, np.random.default_rng(1))
    num_a, num_b = pairs.a_end - pairs.a_start, pairs.b_end - pairs.b_start
    assert num_a.min() >= 1 and num_b.min() >= 1
    assert (num_a + num_b).max() == 61
    bounds = text.sentence_starts[text.document_starts]
    document = [np.searchsorted(bounds, place, side="right") for place in (pairs.a_start, pairs.a_end - 1)]
    other = [np.searchsorted(bounds, place, side="right") for place in (pairs.b_start, pairs.b_end - 1)]
    np.testing.assert_array_equal(document[0], document[1])
    np.testing.assert_array_equal(other[0], other[1])
    np.testing.assert_array_equal(document[0] != other[0], pairs.is_random_next)
    assert (pairs.b_start >= pairs.a_end)[~pairs.is_random_next].all()


def test_each_sentence_is_first_or_second_once_in_a_pass():
    """Without truncation, a chunk contains exactly the sentences that it used, and the next chunk follows them."""
    text = make_text([[3, 4, 5, 2, 6], [4, 4, 4]])
    for seed in range(20):
        pairs = draw_pairs(text, 1000, 0.0, 1, np.random.default_rng(seed))
        own = [(s, e) for s, e in zip(pairs.a_start, pairs.a_end)]
        own += [(s, e) for s, e, r in zip(pairs.b_start, pairs.b_end, pairs.is_random_next) if not r]
        covered = np.concatenate([np.arange(start, end) for start, end in own])
        assert sorted(covered.tolist()) == list(range(len(text.ids)))


def test_distribution_equals_that_of_the_exact_procedure(text, tmp_path):
    rule = ExactRule(64, 0.1, 25, 12345, MaskingRule(0.15, 20, 4, np.arange(50, dtype=np.int32)))
    exact = ExactExamples(text, rule, str(tmp_path), lambda progress: None)
    expected = exact._drawn.pairs(np.arange(len(exact)))
    found = draw_pairs(text, 64, 0.1, 25, np.random.default_rng(2))
    assert len(found.a_start) == pytest.approx(len(expected.a_start), rel=0.01)
    assert found.is_random_next.mean() == pytest.approx(expected.is_random_next.mean(), abs=0.01)
    for start, end in (("a_start", "a_end"), ("b_start", "b_end")):
        ours = getattr(found, end) - getattr(found, start)
        theirs = getattr(expected, end) - getattr(expected, start)
        for share in (0.05, 0.25, 0.5, 0.75, 0.95):
            assert np.quantile(ours, share) == pytest.approx(np.quantile(theirs, share), abs=1)
    total = [pairs.a_end - pairs.a_start + pairs.b_end - pairs.b_start for pairs in (found, expected)]
    assert (total[0] == 61).mean() == pytest.approx((total[1] == 61).mean(), abs=0.01)
    assert (total[0] < 30).mean() == pytest.approx((total[1] < 30).mean(), abs=0.01)


def test_next_sentence_is_random_half_of_the_time_where_there_is_one():
    text = make_text([[5] * 200] * 10)
    pairs = draw_pairs(text, 128, 0.0, 40, np.random.default_rng(3))
    assert pairs.is_random_next.mean() == pytest.approx(0.5, abs=0.02)


@settings(max_examples=200, deadline=None)
@given(num_a=st.integers(1, 60), num_b=st.integers(1, 60), capacity=st.integers(2, 40), seed=st.integers(0, 99))
def test_truncation_ends_as_token_by_token(num_a, num_b, capacity, seed):
    left = [num_a, num_b]
    while sum(left) > capacity:
        left[0 if left[0] > left[1] else 1] -= 1
    pairs = Pairs(*(np.array([value]) for value in (100, 100 + num_a, 500, 500 + num_b)), np.array([True]))
    found = fast_examples._truncate(pairs, capacity, np.random.default_rng(seed))
    assert [found.a_end[0] - found.a_start[0], found.b_end[0] - found.b_start[0]] == left
    assert found.a_start[0] >= 100 and found.a_end[0] <= 100 + num_a
    assert found.b_start[0] >= 500 and found.b_end[0] <= 500 + num_b


def test_truncation_takes_from_both_ends():
    pairs = Pairs(*(np.full(2000, value) for value in (0, 40, 100, 110)), np.ones(2000, bool))
    found = fast_examples._truncate(pairs, 30, np.random.default_rng(0))
    assert found.a_start.mean() == pytest.approx(10, abs=0.3)  # half of the 20 that A has too many


def test_one_document_alone_takes_its_second_half_from_itself():
    pairs = draw_pairs(make_text([[4]]), 16, 0.0, 3, np.random.default_rng(0))
    assert pairs.is_random_next.all() and (pairs.b_start == 0).all() and len(pairs.b_start) == 3


def test_no_document_no_pair():
    assert len(draw_pairs(make_text([]), 16, 0.1, 3, np.random.default_rng(0)).a_start) == 0


documents = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), max_size=6)


def single_sequences(lengths, capacity):
    """The rule, token by token: sentences that fit, of one document; longer ones in pieces. [(start, end)]"""
    found, token = [], 0
    for document in lengths:
        start = token
        for length in document:
            for piece in [capacity] * (length // capacity) + [length % capacity] * (length % capacity > 0):
                if token + piece - start > capacity:
                    found.append((start, token))
                    start = token
                token += piece
        found.append((start, token))
    return found


@settings(max_examples=200, deadline=None)
@given(lengths=documents, capacity=st.integers(3, 20))
def test_single_sequences_are_those_of_a_plain_loop(lengths, capacity):
    found = cut_single_sequences(make_text(lengths), capacity + 2, 0.0, 1, np.random.default_rng(0))
    assert sorted(zip(found.a_start.tolist(), found.a_end.tolist())) == single_sequences(lengths, capacity)
    assert (found.b_start == found.b_end).all() and not found.is_random_next.any()


@settings(max_examples=200, deadline=None)
@given(lengths=documents, num_passes=st.integers(1, 3), short=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 99))
def test_each_pass_has_every_token_once_within_its_document(lengths, num_passes, short, seed):
    text = make_text(lengths)
    found = cut_single_sequences(text, 14, short, num_passes, np.random.default_rng(seed))
    sizes = found.a_end - found.a_start
    assert ((sizes >= 1) & (sizes <= 12)).all()
    seen = np.zeros(len(text.ids), int)
    for start, end in zip(found.a_start, found.a_end):
        seen[start:end] += 1
    assert (seen == num_passes).all()
    bounds = text.sentence_starts[text.document_starts]
    of_first, of_last = (np.searchsorted(bounds, at, side="right") for at in (found.a_start, found.a_end - 1))
    np.testing.assert_array_equal(of_first, of_last)


def test_sequences_of_short_passes_end_between_sentences():
    lengths = [[3, 4, 5, 2, 6] * 20] * 10
    text = make_text(lengths)
    found = cut_single_sequences(text, 64, 1.0, 5, np.random.default_rng(0))
    assert set(found.a_end) <= set(text.sentence_starts)
    assert 5 < (found.a_end - found.a_start).mean() < 40


def test_short_documents_give_no_record_twice(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(60))]
    (tmp_path / "vocabulary").write_text("\n".join(words))
    documents = [f"w{3 * number} w{3 * number + 1}\nw{3 * number + 2}" for number in range(20)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    spans, output = corpus.find_text(str(tmp_path / "text.txt")), str(tmp_path / "shard")
    (task,) = build_shards.tasks_for_files(spans, [output], str(tmp_path / "vocabulary"), CONFIG)
    counts = build_shards.make_shards(task, lambda progress: None)
    index = ShardIndex([output])
    records = index.read(np.arange(counts.examples))
    assert max(Counter(map(bytes, records)).values()) == 1
    assert counts.repeats > 100, "40 passes over documents of three tokens repeat themselves"


def test_only_equal_records_of_a_block_are_left_out():
    repeated = RepeatedRecords()
    repeated.begin_block()
    assert repeated.find_new([b"a", b"b", b"a", b"ab"], [True] * 4) == [True, True, False, True]
    assert repeated.find_new([b"b", b"c"], [True] * 2) == [False, True]
    repeated.begin_block()
    assert repeated.find_new([b"a"], [True]) == [True]
    assert repeated.find_new([b"d", b"d"], [False] * 2) == [True, True], "not compared"
    assert (repeated.num_kept, repeated.num_left_out) == (7, 2)
