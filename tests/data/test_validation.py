import numpy as np
import pytest

from bert_pretrain.data.validation import Limits, check_examples

LIMITS = Limits(vocab_size=1000, type_vocab_size=2)
NAMES = ["shard:0", "shard:50"]


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
