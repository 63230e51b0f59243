import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.check_data import inspection
from bert_pretrain.check_data.shard_facts import Expectation, ShardToInspect
from bert_pretrain.data import schema
from bert_pretrain.data.schema import Examples
from bert_pretrain.data.shards import tfrecord
from bert_pretrain.data.shards.tfrecord import write_shard

UNK, CLS, SEP, MASK = 1, 2, 3, 4
EXPECTATION = Expectation(16, 3, 100, CLS, SEP)


@pytest.fixture
def examples():
    """Thirty sound examples of 8 tokens: [CLS] a a [SEP] b b b [SEP]; column 2 is masked, column 4 kept, 5 another."""
    ids = np.zeros((30, 16), int)
    ids[:, :8] = [CLS, 11, 12, SEP, 21, 22, 23, SEP]
    ids[:, 1] = np.arange(30) + 30  # each is another one
    ids[:, 2], ids[:, 5] = MASK, 99
    segments = np.zeros_like(ids)
    segments[:, 4:8] = 1
    positions, labels = np.tile([2, 4, 5], (30, 1)), np.tile([12, 21, 22], (30, 1))
    return Examples(ids, (ids > 0) * 1, segments, positions, labels, np.ones((30, 3)), np.arange(30) % 2)


@pytest.fixture
def look(tmp_path):
    def inspect(examples, sample_size=0, expectation=EXPECTATION, num_shown=0):
        path = str(tmp_path / "shard")
        write_shard(path, schema.encode_examples(examples))
        return inspection.inspect_shard(ShardToInspect(path, expectation, sample_size, num_shown), lambda share: None)

    return inspect


def test_a_sound_shard_is_counted(examples, look):
    facts = look(examples)
    assert facts.faults == []
    assert facts.num_records == len(set(facts.record_hashes.tolist())) == 30
    contents = facts.contents
    assert (contents.num_parsed, contents.num_masked, contents.num_kept, contents.num_random_next) == (30, 90, 30, 15)
    assert contents.replacement_counts == {MASK: 30, 99: 30}
    assert contents.length_counts.tolist() == [0] * 8 + [30] + [0] * 8
    assert contents.max_id == 99


def test_a_sample_is_spread_over_the_shard(examples, look):
    examples.next_sentence_labels[:] = np.isin(np.arange(30), [0, 10, 20])
    assert look(examples, 3).contents.num_random_next == 3


def test_an_id_beyond_int32_does_not_wrap_into_a_valid_one(examples, look):
    examples.input_ids[4, 1] = 2**32 + 7
    (fault,) = look(examples).faults
    assert "input_ids has 2147483647 or more at index 1; it must be in [0, 100)" in fault


FAULTS = {
    "input_ids": {
        "the first token is not [CLS]": (0, 7),
        "no [SEP] ends the first segment": (3, 7),
        "the last token is not [SEP]": (7, 7),
        "input_ids has 100 at index 1; it must be in [0, 100)": (1, 100),
        "input_ids has -1 at index 1; it must be in [0, 100)": (1, -1),
    },
    "input_mask": {"input_mask has 0 at index 2; it must be ones, then zeros": (2, 0)},
    "segment_ids": {"segment_ids are not zeros and then ones": (6, 0)},
    "masked_lm_positions": {
        "masked_lm_positions has 8 at index 2; it must be a column within the record's tokens": (2, 8),
        "masked positions repeat or do not ascend": (1, 2),
    },
    "masked_lm_ids": {"[CLS] or [SEP] is masked": (1, SEP)},
    "next_sentence_labels": {"next_sentence_labels has 2 at index 0; it must be 0 or 1": ((), 2)},
}


@pytest.mark.parametrize(
    "feature, fault, place, value",
    [(feature, fault, *bad) for feature, faults in FAULTS.items() for fault, bad in faults.items()],
)
def test_faults_are_found_and_placed(examples, look, feature, fault, place, value):
    column = getattr(examples, feature)
    if place == ():
        column[17] = value
    else:
        column[17, place] = value
    facts = look(examples)
    record_size = facts.num_bytes // 30
    begin, found = facts.faults[0].split(": ", 1) if fault in facts.faults[0] else facts.faults[1].split(": ", 1)
    assert found.startswith(fault)
    assert abs(int(begin.rpartition(":")[2]) - 17 * record_size) < 60


def test_records_without_predictions_or_a_second_segment_are_counted(examples, look):
    examples.masked_lm_weights[4:6] = 0
    examples.segment_ids[7:10] = 0
    facts = look(examples)
    assert facts.faults == []
    assert (facts.contents.num_unmasked, facts.contents.num_one_segment) == (2, 3)


def test_without_a_vocabulary_special_tokens_are_not_looked_for(examples, look):
    examples.input_ids[:, 0] = 7
    assert look(examples, expectation=EXPECTATION._replace(cls_id=None, vocab_size=None)).faults == []


def test_other_lengths_are_named(examples, look):
    facts = look(examples, expectation=EXPECTATION._replace(seq_length=32))
    assert "shard:0: 16 tokens and 3 prediction slots, but 32 and 3 are expected" in facts.faults[0]


def test_what_is_no_example_is_named(tmp_path):
    path = str(tmp_path / "shard")
    write_shard(path, [b"not a message"])
    (fault,) = inspection.inspect_shard(ShardToInspect(path, EXPECTATION, 0), lambda share: None).faults
    assert "shard:0" in fault and "not a tf.train.Example" in fault


def test_what_only_training_s_first_look_refuses_is_a_fault(tmp_path, examples):
    """A feature's name that is no UTF-8: TensorFlow's parser takes it, protobuf reads the first record and does not."""
    records = schema.encode_examples(examples)
    example = tf.train.Example.FromString(records[0])
    example.features.feature["~~~~"].int64_list.value.append(1)
    records[0] = example.SerializeToString().replace(b"~~~~", b"\xff" * 4)
    path = str(tmp_path / "shard")
    write_shard(path, records)
    (fault,) = inspection.inspect_shard(ShardToInspect(path, EXPECTATION, 0), lambda share: None).faults
    assert "shard:0: not a tf.train.Example" in fault


def test_unknown_tokens_are_those_of_the_text_before_masking(examples, look):
    examples.input_ids[3, 6] = UNK  # not masked
    examples.masked_lm_ids[5, 0] = UNK  # masked: the input has [MASK]
    examples.input_ids[7, 5] = UNK  # replaces another word
    examples.input_ids[9, 4] = examples.masked_lm_ids[9, 1] = UNK  # masked and left as it was
    assert look(examples, expectation=EXPECTATION._replace(unk_id=UNK)).contents.num_unknown == 3


@pytest.mark.parametrize("num_shown", [0, 1, 7, 30, 50])
def test_shown_records_are_spread_over_the_sample(examples, look, num_shown):
    facts = look(examples, sample_size=0, num_shown=num_shown)
    assert len(facts.shown) == min(num_shown, 30)
    rows = [shown.token_ids[1] - 30 for shown in facts.shown]
    assert rows == [number * 30 // len(rows) for number in range(len(rows))]
    for row, shown in zip(rows, facts.shown):
        assert shown.labels == {2: 12, 4: 21, 5: 22} and shown.is_random_next == row % 2
        assert shown.token_ids == examples.input_ids[row, :8].tolist()


def test_damage_and_truncation_are_named_by_byte(tmp_path, examples):
    path = tmp_path / "shard"
    write_shard(str(path), schema.encode_examples(examples))
    content = bytearray(path.read_bytes())
    first_size = tfrecord.HEADER.unpack_from(content)[0] + tfrecord.FRAME_SIZE
    content[first_size + 40] ^= 1
    path.write_bytes(content)
    (fault,) = inspection.inspect_shard(ShardToInspect(str(path), EXPECTATION, 0), lambda share: None).faults
    assert f"shard:{first_size}: record 1 is damaged" in fault
    content[first_size + 40] ^= 1
    path.write_bytes(content[: 2 * first_size + 20])
    (fault,) = inspection.inspect_shard(ShardToInspect(str(path), EXPECTATION, 0), lambda share: None).faults
    assert "is cut short" in fault
