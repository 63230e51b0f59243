import numpy as np

from bert_pretrain.data import schema
from bert_pretrain.data.masking import Masking
from bert_pretrain.make_data.shards import serialization
from bert_pretrain.make_data.shards.instances import Instances


def test_records_are_what_protobuf_writes():
    rng = np.random.default_rng(0)
    num_examples, seq_length, max_predictions = 40, 300, 9
    num_tokens = rng.integers(3, seq_length + 1, num_examples)
    num_first = rng.integers(2, num_tokens)
    num_masked = rng.integers(1, max_predictions + 1, num_examples)
    column, slot = np.arange(seq_length), np.arange(max_predictions)
    is_token, used = column < num_tokens[:, None], slot < num_masked[:, None]
    input_ids = np.where(is_token, rng.choice([0, 1, 127, 128, 16383, 16384, 30521], is_token.shape), 0)
    positions = np.where(used, np.sort(rng.integers(0, seq_length, used.shape)), 0)
    ids = np.where(used, rng.integers(0, 300_000, used.shape), 0)
    is_random_next = rng.random(num_examples) < 0.5
    expected = schema.Examples(
        input_ids, is_token, is_token & (column >= num_first[:, None]), positions, ids, used, is_random_next
    )
    instances = Instances(input_ids, num_first, num_tokens, is_random_next)
    found = serialization.serialize_examples(instances, Masking(input_ids, positions, ids, num_masked))
    integers = schema.Examples(*(np.asarray(column, int) for column in expected))
    assert [_canonical(record) for record in found] == schema.encode_examples(
        integers._replace(masked_lm_weights=used * 1.0)
    )


def _canonical(record):
    """The same message with its map in sorted order, as schema.encode writes it."""
    import tensorflow as tf

    return tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_features_are_in_the_order_of_protobuf_4():
    """One record as google-research/bert's script makes it, written with protobuf 4.25.9."""
    expected = (
        b"\n\xd2\x01\n\x19\n\rmasked_lm_ids\x12\x08\x1a\x06\n\x04\xa0\x9c\x01\x00"
        b"\n\x1b\n\tinput_ids\x12\x0e\x1a\x0c\n\ne\xac\x02gf\xd0\x0ff\x00\x00"
        b"\n\x1d\n\x13masked_lm_positions\x12\x06\x1a\x04\n\x02\x02\x00"
        b"\n\x1d\n\x14next_sentence_labels\x12\x05\x1a\x03\n\x01\x01"
        b"\n\x1a\n\ninput_mask\x12\x0c\x1a\n\n\x08\x01\x01\x01\x01\x01\x01\x00\x00"
        b"\n!\n\x11masked_lm_weights\x12\x0c\x12\n\n\x08\x00\x00\x80?\x00\x00\x00\x00"
        b"\n\x1b\n\x0bsegment_ids\x12\x0c\x1a\n\n\x08\x00\x00\x00\x00\x01\x01\x00\x00"
    )
    input_ids = np.array([[101, 300, 103, 102, 2000, 102, 0, 0]])
    instances = Instances(input_ids, np.array([4]), np.array([6]), np.array([True]))
    masking = Masking(input_ids, np.array([[2, 0]]), np.array([[20000, 0]]), np.array([1]))
    assert serialization.serialize_examples(instances, masking) == [expected]
