""""""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.data import schema
from bert_pretrain.data.schema import Limits, check_examples

LIMITS = Limits(vocab_size=1000, type_vocab_size=2)
NAMES = ["shard:0", "shard:50"]


def make_examples(num_examples=3, seq_length=8, max_predictions=2):
    tokens = np.arange(num_examples * seq_length, dtype=np.int32).reshape(num_examples, seq_length)
    slots = np.arange(num_examples * max_predictions, dtype=np.int32).reshape(num_examples, max_predictions)
    return schema.Examples(
        input_ids=tokens,
        input_mask=np.ones_like(tokens),
        segment_ids=tokens % 2,
        masked_lm_positions=slots,
        masked_lm_ids=slots + 100,
        masked_lm_weights=np.ones(slots.shape, np.float32),
        next_sentence_labels=np.arange(num_examples, dtype=np.int32) % 2,
    )


def parse(records, names, seq_length=8, max_predictions=2):
    return schema.parse_examples(tf.constant(records), tf.constant(names), seq_length, max_predictions)


def test_the_table_and_examples_name_the_same_features_in_the_same_order():
    assert tuple(feature.name for feature in schema.FEATURES) == schema.Examples._fields


def test_encoded_examples_are_parsed_back_with_their_types():
    examples = make_examples()
    parsed = parse(schema.encode_examples(examples), ["a", "b", "c"])
    for name, expected, value in zip(schema.Examples._fields, examples, parsed):
        np.testing.assert_array_equal(value.numpy(), expected, err_msg=name)
        assert value.dtype == (tf.float32 if name == "masked_lm_weights" else tf.int32)


def test_on_disk_integers_are_int64_and_weights_float32():
    stored = tf.train.Example.FromString(schema.encode_examples(make_examples())[0]).features.feature
    kinds = {name: stored[name].WhichOneof("kind") for name in stored}
    assert kinds.pop("masked_lm_weights") == "float_list"
    assert set(kinds.values()) == {"int64_list"}
    assert len(kinds) == 6


def test_encoding_is_deterministic():
    assert schema.encode_examples(make_examples()) == schema.encode_examples(make_examples())


def test_lengths_come_from_the_record():
    record = schema.encode_examples(make_examples(1, seq_length=16, max_predictions=3))[0]
    assert schema.record_lengths(record, "shard:0") == (16, 3)


def test_a_record_without_a_feature_is_named_with_what_it_holds():
    record = tf.train.Example()
    record.features.feature["input_ids"].int64_list.value.extend([1, 2])
    with pytest.raises(ValueError, match=r"^shard:7: feature input_mask is missing, .*input_ids"):
        schema.record_lengths(record.SerializeToString(), "shard:7")


def test_a_record_with_uneven_features_is_named():
    examples = make_examples(1)._replace(segment_ids=np.zeros([1, 5], np.int32))
    with pytest.raises(ValueError, match=r"^shard:7: segment_ids has 5 int64_list values, expected 8; "):
        schema.record_lengths(schema.encode_examples(examples)[0], "shard:7")


def test_a_feature_of_the_wrong_type_is_named():
    record = tf.train.Example.FromString(schema.encode_examples(make_examples(1))[0])
    record.features.feature["segment_ids"].float_list.value.extend([0.0] * 8)
    with pytest.raises(ValueError, match=r"^shard:7: segment_ids has 0 int64_list values, expected 8; "):
        schema.record_lengths(record.SerializeToString(), "shard:7")


def test_bytes_that_are_no_message_are_named():
    with pytest.raises(ValueError, match=r"^shard:7: not a tf.train.Example "):
        schema.record_lengths(b"\xff\xff\xff", "shard:7")


@pytest.mark.parametrize("stored, parsed", [(2**32 + 7, 2**31 - 1), (7 - 2**32, -(2**31)), (2**31 - 2, 2**31 - 2)])
def test_integers_beyond_int32_do_not_wrap_into_valid_ones(stored, parsed):
    examples = make_examples(1)
    tokens = examples.input_ids.astype(np.int64)
    tokens[0, 3] = stored
    (record,) = schema.encode_examples(examples._replace(input_ids=tokens))
    assert parse([record], ["a"]).input_ids.numpy()[0, 3] == parsed


def test_tensorflow_names_the_record_whose_lengths_differ():
    records = schema.encode_examples(make_examples(2)) + schema.encode_examples(make_examples(1, seq_length=9))
    with pytest.raises(tf.errors.InvalidArgumentError, match="c:30"):
        parse(records, ["a:10", "b:20", "c:30"])


def test_the_documented_table_is_the_schema():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "data_format.md").read_text(encoding="utf-8")
    types = {int: "int64", float: "float32"}
    rows = [f"| `{name}` | {types[dtype]}[{length}] | {meaning} |" for name, length, dtype, meaning in schema.FEATURES]
    assert "\n".join(["| feature | on disk | meaning |", "|---|---|---|", *rows, ""]) in text


def test_sound_examples_pass(make_examples):
    check_examples(make_examples([5, 16]), LIMITS, NAMES)


def test_what_stands_in_padding_and_unused_slots_does_not_matter(make_examples):
    examples = make_examples([5, 9])
    examples.input_ids[0, 5] = 5000
    examples.masked_lm_weights[1, 2] = 0.0
    examples.masked_lm_positions[1, 2] = 4000
    examples.masked_lm_ids[1, 2] = -3
    check_examples(examples, LIMITS, NAMES)


@pytest.mark.parametrize(
    "feature, place, value, message",
    [
        ("input_mask", (1, 2), 0, "input_mask has 0 at index 2; it must be ones, then zeros; "),
        ("input_mask", (1, 3), 2, "input_mask has 2 at index 3; it must be ones, then zeros; "),
        ("input_mask", (1, slice(None)), 0, "the number of tokens has 0 at index 0; "),
        ("input_ids", (1, 3), 1000, "input_ids has 1000 at index 3; it must be in [0, 1000): "),
        ("input_ids", (1, 3), -1, "input_ids has -1 at index 3; "),
        ("segment_ids", (1, 3), 2, "segment_ids has 2 at index 3; it must be in [0, 2): "),
        ("masked_lm_positions", (1, 1), 9, "masked_lm_positions has 9 at index 1; "),
        ("masked_lm_positions", (1, 1), -1, "masked_lm_positions has -1 at index 1; "),
        ("masked_lm_ids", (1, 0), 4321, "masked_lm_ids has 4321 at index 0; it must be in [0, 1000): "),
        ("masked_lm_weights", (1, 0), -1.0, "masked_lm_weights has -1.0 at index 0; "),
        ("masked_lm_weights", (1, 2), np.nan, "masked_lm_weights has nan at index 2; "),
        ("next_sentence_labels", (1,), 2, "next_sentence_labels has 2 at index 0; it must be 0 or 1"),
    ],
)
def test_a_fault_is_named_with_record_feature_value_and_index(make_examples, feature, place, value, message):
    examples = make_examples([5, 9])
    getattr(examples, feature)[place] = value
    with pytest.raises(ValueError) as raised:
        check_examples(examples, LIMITS, NAMES)
    assert str(raised.value).startswith(f"shard:50: {message}")
    assert "\n" not in str(raised.value)
