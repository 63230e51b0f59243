from collections import Counter

import numpy as np
import pytest

from bert_pretrain.check_data.inspection import Contents, Expectation, ShardFacts
from bert_pretrain.check_data.report import summarize

MASK = 4
EXPECTATION = Expectation(128, 20, 100, 2, 3)


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
        "96-112: 100%",
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
    assert few.remarks == ["5 of 2000 records repeat others"] and not few.faults
    much = summarize([facts(), facts("a/1", 900)], EXPECTATION, MASK)
    assert much.faults == ["100 of 2000 records repeat others; was a shard copied, or made twice?"]
    same = summarize([facts(), facts("a/1")], EXPECTATION, MASK)
    assert "a/1: the same records as 0; remove one of them" in same.faults


def test_faults_of_shards_and_empty_shards_are_kept(facts):
    found = summarize([facts(faults=["a/0:12: damaged"]), facts("a/1", 0, 0)], EXPECTATION, MASK)
    assert found.faults[:2] == ["a/0:12: damaged", "a/1: no records"]
