"""The report on data: its lines, its findings, the picture of the lengths, and examples as text."""

from __future__ import annotations

import re
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.check_data import report
from bert_pretrain.check_data.report import summarize_shards
from bert_pretrain.check_data.shard_facts import Contents, Expectation, ShardFacts, ShownExample
from bert_pretrain.data.findings import Severity

FAULT, WARNING, NOTE = Severity
MASK = 4
EXPECTATION = Expectation(128, 20, 100, 2, 3, 1)
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "play", "##ing", "##s", "sat", "\x1b[2J", "##"]
IDS = {entry: number for number, entry in enumerate(ENTRIES)}


@pytest.fixture
def facts():
    """A sound shard of 1,000 records of 100 tokens, 15 of them masked."""

    def make(name="a/0", first_hash=0, num_records=1000, faults=(), **changes):
        lengths = np.zeros(129, np.int64)
        lengths[100] = 1000
        contents = Contents(1000, lengths, 500, 15_000, 1500, Counter({MASK: 12_000, 7: 800, 8: 700}), 99)
        hashes = np.arange(first_hash, first_hash + num_records, dtype=np.uint64)
        return ShardFacts(name, 900_000, num_records, hashes, contents._replace(**changes), list(faults))

    return make


def test_sound_data_has_no_findings(facts):
    found = summarize_shards([facts(), facts("a/1", 1000)], EXPECTATION, MASK)
    assert found.findings == []
    words = "\n".join(found.lines)
    for part in (
        "2 shards of 0.9 to 0.9 MB, 2000 records, 1000 to 1000 in a shard",
        "15.0% of the tokens are to be predicted: 80.0% [MASK] (id 4), 10.0% other tokens, 10.0% as they were",
        "50.0% of the second sentences are random",
        "0.00% of the text's tokens are [UNK]",
        " 97-104 100.0% " + "#" * 50,
        "21.9% padding",
    ):
        assert part in words


def test_the_mask_is_known_without_a_vocabulary(facts):
    assert "80.0% [MASK] (id 4)" in "\n".join(summarize_shards([facts()], EXPECTATION, None).lines)


@pytest.mark.parametrize(
    "changes, severity, words",
    [
        ({"num_masked": 50_000, "num_kept": 5000, "replacement_counts": Counter({MASK: 40_000})}, NOTE, "50.0% of the"),
        ({"replacement_counts": Counter({MASK: 13_500})}, NOTE, "90%, 0% and 10% of the predictions"),
        ({"num_random_next": 0}, WARNING, "none of the 1000 second sentences"),
        ({"num_random_next": 1000}, WARNING, "all of the 1000 second sentences"),
        ({"num_random_next": 449}, NOTE, "44.9% of the second sentences"),
        ({"num_random_next": 551}, NOTE, "55.1% of the second sentences"),
        ({"num_unknown": 2000}, WARNING, "2.06% of the text's tokens are [UNK]"),
        ({"num_unknown": 60_000}, FAULT, "61.86% of the text's tokens are [UNK]"),
        ({"num_unmasked": 5}, NOTE, "5 of 1000 records"),
        ({"num_unmasked": 500}, WARNING, "500 of 1000 records"),
        ({"num_masked": 0, "num_kept": 0, "num_unmasked": 1000}, FAULT, "none of the 1000 records has a token to"),
        ({"num_one_segment": 500}, WARNING, "500 of 1000 records"),
        ({"num_one_segment": 1000}, FAULT, "the segment ids of all 1000 records are 0"),
    ],
)
def test_what_is_unusual_is_judged(facts, changes, severity, words):
    (found,) = summarize_shards([facts(**changes)], EXPECTATION, MASK).findings
    assert found.severity is severity and found.text.startswith(words) and found.remedy


def test_uneven_shards_of_a_directory_are_noted(facts):
    shards = [facts("a/0", 0, 1000), facts("a/1", 1000, 400), facts("b/0", 1400, 10)]
    (found,) = summarize_shards(shards, EXPECTATION, MASK).findings
    assert found.severity is NOTE
    assert found.text == "a: the largest shard has 1000 records, the smallest 400"


def test_repetition_is_a_fault_when_it_is_much(facts):
    (few,) = summarize_shards([facts(), facts("a/1", 995)], EXPECTATION, MASK).findings
    assert few[:2] == (
        NOTE,
        "5 of 2000 records (0.25%) repeat others: 5 in a/1; for example, record 0 of a/1 is record 995 of a/0",
    )
    (much,) = summarize_shards([facts(), facts("a/1", 900)], EXPECTATION, MASK).findings
    assert much.severity is FAULT
    assert much.text.startswith("100 of 2000 records (5.00%) repeat others: 100 in a/1; for example")
    same = summarize_shards([facts(), facts("a/1")], EXPECTATION, MASK).of(FAULT)
    assert "a/1: the same records as 0" in [found.text for found in same]


def test_faults_of_shards_and_empty_shards_are_kept(facts):
    found = summarize_shards([facts(faults=["a/0:12: damaged"]), facts("a/1", 0, 0)], EXPECTATION, MASK)
    assert [one.text for one in found.of(FAULT)][:2] == ["a/0:12: damaged", "a/1: no records"]


def test_few_records_are_not_judged_for_what_chance_explains(facts):
    lengths = np.zeros(129, np.int64)
    lengths[100] = 40
    changes = {"num_parsed": 40, "length_counts": lengths, "num_masked": 600, "num_kept": 60}
    counts = Counter({MASK: 480, 7: 60})
    for num_random, is_told in ((25, False), (31, True)):  # 5 and 11 above half; three standard errors are 9.5
        shard = facts(num_records=40, num_random_next=num_random, replacement_counts=counts, **changes)
        assert bool(summarize_shards([shard], EXPECTATION, MASK).findings) == is_told


def test_records_without_tokens_are_reported_by_their_faults(facts):
    lengths = np.zeros(129, np.int64)
    lengths[0] = 1000
    empty = facts(length_counts=lengths, num_masked=0, num_kept=0, replacement_counts=Counter(), faults=["a/0: bad"])
    (fault,) = summarize_shards([empty], EXPECTATION, MASK).findings
    assert fault.text == "a/0: bad"


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=6).filter(any))
def test_duplicates_are_counted_and_placed(contents):
    """Against a dictionary of the first places."""
    none = Contents()
    shards = [
        ShardFacts(str(number), 9, len(hashes), np.array(hashes, np.uint64), none, [])
        for number, hashes in enumerate(contents)
    ]
    found, first, repeats = report.find_duplicate_records(shards), {}, Counter()
    places = [(number, place, value) for number, values in enumerate(contents) for place, value in enumerate(values)]
    for number, place, value in places:
        repeats[number] += value in first
        first.setdefault(value, (number, place))
    assert found.count == sum(repeats.values())
    assert all(f"{count} in {number}" in found.where for number, count in repeats.most_common(3) if count)
    if found.count:
        later_place, later, place, number = (
            re.findall(r"record (\d+) of (\d+)", found.where)[0]
            + re.findall(r"is record (\d+) of (\d+)", found.where)[0]
        )
        assert first[contents[int(later)][int(later_place)]] == (int(number), int(place))


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=600).filter(any))
def test_every_record_is_in_the_range_of_its_length(counts):
    """Against a count by hand; the ranges follow each other without a gap up to the largest length."""
    lines = report.histogram_bars(np.array(counts), "#")
    expected, next_length = sum(counts), 0
    for line in lines:
        label, share = re.match(r" +(\d+(?:-\d+)?) +([\d.]+)% ?#*$", line).groups()
        low, _, high = label.partition("-")
        low, high = int(low), int(high or low)
        assert low == next_length + 1
        inside = sum(counts[low : high + 1]) + (counts[0] if low == 1 else 0)
        assert abs(float(share) - 100 * inside / expected) <= 0.051
        next_length = high
    assert next_length == len(counts) - 1 and len(lines) <= 16
    assert max(line.count("#") for line in lines) == 50


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_a_picture_is_drawn(tmp_path, suffix, start):
    pytest.importorskip("matplotlib")
    path = str(tmp_path / f"lengths{suffix}")
    report.check_histogram_path(path)
    report.draw_histogram(np.arange(129), path)
    assert (tmp_path / f"lengths{suffix}").read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_refused_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf"):
        report.check_histogram_path(str(tmp_path / "lengths"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(ValueError, match="--histogram needs matplotlib, which is not installed"):
        report.check_histogram_path(str(tmp_path / "lengths.png"))


def test_a_missing_directory_is_refused_before_the_work(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="give a file in a directory that exists"):
        report.check_histogram_path(str(tmp_path / "no" / "lengths.png"))


def shown(tokens: str, labels: dict[int, str]) -> ShownExample:
    return ShownExample(
        "a:0", [IDS[token] for token in tokens.split()], {at: IDS[word] for at, word in labels.items()}, True
    )


def test_words_are_joined_and_predictions_marked():
    tokens = "[CLS] the [MASK] play [MASK] [SEP] ##s sat cat the [SEP]"
    found = report.example_text(shown(tokens, {2: "cat", 4: "##ing", 8: "the", 9: "the"}), ENTRIES)
    assert found == "[CLS] the [MASK:cat] play[MASK:##ing] [SEP] ##s sat [cat:the] [the:the] [SEP]"


def test_ids_without_entry_and_control_characters_are_written_plainly():
    found = report.example_text(ShownExample("a:0", [2, 99, -1, 11], {}, False), ENTRIES)
    assert found == "[CLS] [id 99] [id -1] \\x1b[2J"


words = st.lists(st.tuples(st.sampled_from(["the", "cat", "play", "sat"]), st.lists(st.sampled_from(["ing", "s"]))))


@given(words, st.randoms(use_true_random=False))
def test_with_the_predictions_put_in_it_is_the_text(text, rng):
    """The words, made of pieces that are masked at random, come back."""
    pieces = [piece for word, ends in text for piece in (word, *(f"##{end}" for end in ends))]
    labels = {column: piece for column, piece in enumerate(pieces) if rng.random() < 0.4}
    tokens = [
        rng.choice(["[MASK]", "cat", piece]) if column in labels else piece for column, piece in enumerate(pieces)
    ]
    written = report.example_text(shown(" ".join(tokens), labels), ENTRIES)
    assert re.sub(r"\[\S+?:(?:##)?(\w+)\]", r"\1", written) == " ".join(word + "".join(ends) for word, ends in text)


def test_an_example_of_a_single_sequence_names_no_second_sentence():
    example = shown("[CLS] the cat [SEP]", {})._replace(is_random_next=False, is_single=True)
    assert report.example_lines(example, ENTRIES, 60) == ["example a:0, a single sequence:", "    [CLS] the cat [SEP]"]


def test_lines_keep_to_the_width():
    example = shown("[CLS] " + "the cat " * 50 + "[SEP]", {})
    heading, *lines = report.example_lines(example, ENTRIES, 60)
    assert heading == "example a:0, the second sentence is random:"
    assert max(map(len, lines)) <= 60 and " ".join("".join(lines).split()).startswith("[CLS] the cat")
