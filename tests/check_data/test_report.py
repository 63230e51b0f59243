import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.check_data import duplicates
from bert_pretrain.check_data.contents import Contents, Expectation, ShardFacts
from bert_pretrain.check_data.report import summarize

MASK = 4
EXPECTATION = Expectation(128, 20, 100, 2, 3, 1)


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


def test_sound_data_has_findings_only(facts):
    found = summarize([facts(), facts("a/1", 1000)], EXPECTATION, MASK)
    assert (found.remarks, found.faults) == ([], [])
    words = "\n".join(found.findings)
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
    assert "80.0% [MASK] (id 4)" in "\n".join(summarize([facts()], EXPECTATION, None).findings)


@pytest.mark.parametrize(
    "changes, remark",
    [
        (
            {"num_masked": 30_000, "num_kept": 3000, "replacement_counts": Counter({MASK: 24_000})},
            "30.0% of the tokens",
        ),
        ({"replacement_counts": Counter({MASK: 13_500})}, "90%, 0% and 10% [MASK], other, unchanged"),
        ({"num_random_next": 0}, "0.0% of the second sentences are random"),
        ({"num_random_next": 449}, "44.9% of the second sentences are random"),
        ({"num_random_next": 551}, "55.1% of the second sentences are random"),
        ({"num_unknown": 2000}, "2.06% of the text's tokens are [UNK]"),
    ],
)
def test_what_is_unusual_is_remarked_on(facts, changes, remark):
    found = summarize([facts(**changes)], EXPECTATION, MASK)
    assert found.remarks[0].startswith(remark) and not found.faults


def test_uneven_shards_of_a_directory_are_remarked_on(facts):
    shards = [facts("a/0", 0, 1000), facts("a/1", 1000, 400), facts("b/0", 1400, 10)]
    assert summarize(shards, EXPECTATION, MASK).remarks == ["a: the largest shard has 1000 records, the smallest 400"]


def test_repetition_is_a_fault_when_it_is_much(facts):
    few = summarize([facts(), facts("a/1", 995)], EXPECTATION, MASK)
    assert few.remarks == [
        "5 of 2000 records (0.25%) repeat others: 5 in a/1; for example, record 0 of a/1 is record 995 of a/0"
    ]
    assert not few.faults
    much = summarize([facts(), facts("a/1", 900)], EXPECTATION, MASK)
    (fault,) = much.faults
    assert fault.startswith("100 of 2000 records (5.00%) repeat others: 100 in a/1; for example")
    assert fault.endswith("was a shard copied, or made twice?")
    same = summarize([facts(), facts("a/1")], EXPECTATION, MASK)
    assert "a/1: the same records as 0; remove one of them" in same.faults


def test_faults_of_shards_and_empty_shards_are_kept(facts):
    found = summarize([facts(faults=["a/0:12: damaged"]), facts("a/1", 0, 0)], EXPECTATION, MASK)
    assert found.faults[:2] == ["a/0:12: damaged", "a/1: no records"]


def test_few_records_are_not_remarked_on_for_what_chance_explains(facts):
    lengths = np.zeros(129, np.int64)
    lengths[100] = 40
    changes = {"num_parsed": 40, "length_counts": lengths, "num_masked": 600, "num_kept": 60}
    counts = Counter({MASK: 480, 7: 60})
    for num_random, is_told in ((25, False), (31, True)):  # 5 and 11 above half; three standard errors are 9.5
        shard = facts(num_records=40, num_random_next=num_random, replacement_counts=counts, **changes)
        assert bool(summarize([shard], EXPECTATION, MASK).remarks) == is_told


def test_records_without_tokens_or_masks_are_reported_by_their_faults(facts):
    lengths = np.zeros(129, np.int64)
    lengths[0] = 1000
    empty = facts(length_counts=lengths, num_masked=0, num_kept=0, replacement_counts=Counter(), faults=["a/0: bad"])
    assert summarize([empty], EXPECTATION, MASK).faults == ["a/0: bad"]
    unmasked = facts(num_masked=0, num_kept=0, replacement_counts=Counter(), faults=["a/0: bad"])
    assert "0.0% of the tokens are to be predicted" in "\n".join(summarize([unmasked], EXPECTATION, MASK).findings)


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=6).filter(any))
def test_duplicates_are_counted_and_placed(contents):
    """Against a dictionary of the first places."""
    none = Contents()
    shards = [
        ShardFacts(str(number), 9, len(hashes), np.array(hashes, np.uint64), none, [])
        for number, hashes in enumerate(contents)
    ]
    found, first, repeats = duplicates.find(shards), {}, Counter()
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
