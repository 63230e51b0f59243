"""Counting words in parts and in bounded memory."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.vocabulary import word_counts
from bert_pretrain.make_data.vocabulary.word_counts import WordCounts

PARTS = st.lists(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(1, 9))), max_size=8)


def test_counts_of_parts_add_up(tmp_path, monkeypatch):
    lines = [f"Word{number % 37}, naïve {number}" for number in range(500)]
    (tmp_path / "one.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "two.txt").write_text("the last line\nhas no end", encoding="utf-8")
    spans = [corpus.whole_file(str(tmp_path / name)) for name in ("one.txt", "two.txt")]
    whole = word_counts.count_words([*lines, "the last line", "has no end"], lower_case=True)
    assert whole["naive"] == 500 and whole["word1"] == 14 and whole[","] == 500
    monkeypatch.setattr(word_counts, "_BYTES_IN_TASK", 1000)
    parts = word_counts.tasks_for_counting(spans, lower_case=True)
    assert len(parts) > 8 and sum(part.num_bytes for part in parts) == sum(span.end for span in spans)
    counted = WordCounts(10_000)
    for part in parts:
        counted.add(*word_counts.count_words_of_task(part, lambda progress: None))
    assert counted.counts == whole and counted.max_missed == 0


@given(parts=PARTS, max_words=st.integers(2, 10))
def test_a_count_is_short_by_max_missed_at_most(parts, max_words):
    counted, exact = WordCounts(max_words), Counter()
    for part in parts:
        counted.add(*zip(*part) if part else ((), ()))
        for word, count in part:
            exact[word] += count
    assert len(counted.counts) <= max_words
    assert all(exact[word] - counted.max_missed <= counted.counts.get(word, 0) <= exact[word] for word in exact)
    if len(exact) <= max_words:
        assert counted.max_missed == 0


def test_words_are_dropped_in_few_passes(monkeypatch):
    passes = []
    drop = WordCounts._most_frequent
    monkeypatch.setattr(WordCounts, "_most_frequent", lambda self: passes.append(1) or drop(self))
    counted = WordCounts(1000)
    counted.add(["common"], [9])
    for _ in range(2):
        counted.add(map(str, range(999)), [1] * 999)
    counted.add((f"rare{number}" for number in range(2000)), [1] * 2000)
    assert counted.counts["common"] == 9 and len(counted.counts) <= 1000
    assert len(passes) <= 4, "each pass must make room for the next 500 words"
