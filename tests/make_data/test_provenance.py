import json

import pytest

from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.provenance import Origin, is_finished


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"12345")
    return path


ORIGIN = Origin({"dupe_factor": 5}, "abc", [])


def describe(shard, counts=None):
    with shard.open("ab") as file:
        provenance.write_provenance(str(shard), file, ORIGIN, counts or {})


def test_a_shard_is_finished_when_its_side_file_says_so(shard):
    describe(shard, {"examples": 3})
    assert is_finished(str(shard), ORIGIN)
    assert provenance.read_provenance(str(shard))["examples"] == 3
    assert sorted(path.name for path in shard.parent.iterdir()) == ["a.tfrecord", "a.tfrecord.json"]


def test_a_missing_or_shortened_shard_is_not(shard):
    describe(shard)
    shard.write_bytes(b"1234")
    assert not is_finished(str(shard), ORIGIN)
    shard.unlink()
    assert not is_finished(str(shard), ORIGIN)


def test_what_stands_there_otherwise_is_not_overwritten(shard):
    with pytest.raises(ValueError, match="exists already and was not written by make_data"):
        is_finished(str(shard), ORIGIN)
    describe(shard)
    for origin, difference in (
        (ORIGIN._replace(settings={"dupe_factor": 6}), r"made from dupe_factor 5 \(now 6\)"),
        (ORIGIN._replace(vocabulary="abd"), "another vocabulary"),
        (ORIGIN._replace(text=[{"name": "b.txt"}]), "other text"),
    ):
        with pytest.raises(ValueError, match=difference):
            is_finished(str(shard), origin)


def test_a_setting_that_an_older_version_did_not_know_had_its_default(shard):
    describe(shard)
    newer = ORIGIN._replace(settings={"dupe_factor": 5, "single_sequence": False})
    defaults = {"dupe_factor": 10, "single_sequence": False}
    assert is_finished(str(shard), newer, defaults)
    changed = ORIGIN._replace(settings={"dupe_factor": 5, "single_sequence": True})
    with pytest.raises(ValueError, match=r"made from single_sequence False \(now True\)"):
        is_finished(str(shard), changed, defaults)


def test_text_that_changes_is_other_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = provenance.describe_text((corpus.whole_file(str(path)),))
    assert (before[0]["name"], before[0]["size"], before[0]["start"], before[0]["end"]) == ("a.txt", 3, 0, 3)
    path.write_text("two, longer")
    assert provenance.describe_text((corpus.whole_file(str(path)),)) != before
    json.dumps(before)
