import time

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.rampup import RampUp
from bert_pretrain.config.training import DataConfig
from bert_pretrain.data import dataset, input_fn, schema
from bert_pretrain.data.dataset import Lengths, Source
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput, UpdateShape
from bert_pretrain.data.order import Order
from bert_pretrain.data.packing import build_batch
from bert_pretrain.data.schema import Batch, Limits, explain_input_error
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.tensorflow_compat import estimator

SEQ_LENGTH, MAX_PREDICTIONS = 16, 3
LIMITS = Limits(vocab_size=200_000, type_vocab_size=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def make_source(directory, make_examples):
    """A source over shards of the given sizes; record i is the token i + 1 repeated."""

    def make(*records_per_shard, limits=LIMITS, spoil=None):
        examples = make_examples(3 + np.arange(sum(records_per_shard)) % 14, SEQ_LENGTH, MAX_PREDICTIONS)
        records = schema.encode_examples(examples)
        if spoil:
            spoil(records)
        start = 0
        for shard, size in enumerate(records_per_shard):
            write_shard(str(directory / f"part-{shard}"), records[start : start + size])
            start += size
        return Source.open([str(directory)], DataConfig(), limits)

    return make


def training(source, examples_per_rank=4, **settings):
    first_update = settings.pop("first_update", 0)
    shape = UpdateShape(examples_per_rank, rows_per_micro_batch=2, **{"pack": False, **settings})
    return TrainingInput(source, shape, 7, first_update)


def run_training(source, num_updates):
    """The first batches of a training input, as Estimator would start it."""
    with tf.Graph().as_default():
        features = source()
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.tables_initializer())
            return [session.run(features) for _ in range(num_updates)]


def run_evaluation(source, times=1):
    with tf.Graph().as_default():
        features, initializer = source.tensors()
        runs = []
        with tf.compat.v1.Session() as session:
            for _ in range(times):
                session.run(initializer)
                runs.append([])
                while True:
                    try:
                        runs[-1].append(session.run(features))
                    except tf.errors.OutOfRangeError:
                        break
        return runs


def record_numbers(features):
    """Which records a batch holds, told by the token at each [CLS]."""
    return (features["token_ids"].reshape(-1)[features["cls_positions"]] - 1).tolist()


def test_an_update_is_its_records_laid_out(make_source, make_examples):
    source = make_source(30, 10)
    features = training(source)
    examples = make_examples(3 + np.arange(40) % 14, SEQ_LENGTH, MAX_PREDICTIONS)
    for update, batch in enumerate(run_training(features, 3)):
        expected = build_batch(
            schema.Examples(*(column[features.records(update)] for column in examples)), 2, pack=False
        )
        assert set(batch) == {*Batch._fields, "input_wait_seconds"}
        for name in Batch._fields:
            np.testing.assert_array_equal(batch[name], getattr(expected, name), err_msg=name)
            assert batch[name].dtype == getattr(expected, name).dtype


def test_a_packed_update_holds_the_same_examples(make_source):
    source = make_source(30, 10)
    packed, unpacked = (run_training(training(source, 16, pack=pack), 5) for pack in (True, False))
    for a, b in zip(packed, unpacked):
        assert sorted(record_numbers(a)) == sorted(record_numbers(b))
        assert len(a["token_ids"]) < len(b["token_ids"])


def test_starting_at_an_update_goes_on_as_if_never_stopped(make_source):
    source = make_source(13, 9)
    whole = run_training(training(source), 12)
    rest = run_training(training(source, first_update=7), 5)
    for a, b in zip(whole[7:], rest):
        for name in Batch._fields:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(("num_ranks", "pieces"), [(1, 0), (1, 6), (2, 0), (2, 6), (3, 0)])
def test_growing_updates_take_the_same_stream(make_source, num_ranks, pieces):
    """Updates of 6, 6, 6, 12, 12, 18, ... records, over all ranks, are the stretches 0:6, 6:12, ... of the order."""
    source, order = make_source(20, 11), Order([20, 11], seed=7)
    shape = {"num_ranks": num_ranks, "fixed_micro_batches": pieces, "rampup_batch_size": RampUp(6, 6, 36), "pack": True}
    ends = [0, 6, 12, 18, 30, 42, 60, 78, 96]
    for first in (0, 4):
        ranks = [
            run_training(training(source, 18 // num_ranks, rank=rank, first_update=first, **shape), 8 - first)
            for rank in range(num_ranks)
        ]
        for update in range(first, 8):
            seen = [record_numbers(rank[update - first]) for rank in ranks]
            assert len({len(numbers) for numbers in seen}) == 1
            expected = order.records(ends[update], ends[update + 1])
            assert sorted(number for numbers in seen for number in numbers) == sorted(expected.tolist())
            if pieces:
                splits = [len(rank[update - first]["row_splits"]) - 1 for rank in ranks]
                assert splits == [len(expected) // 3 // num_ranks] * num_ranks


def test_micro_batches_of_growing_updates_are_the_same_on_any_number_of_ranks(make_source):
    source, per_update = make_source(20, 11), {}
    for num_ranks in (1, 2):
        shape = {"num_ranks": num_ranks, "fixed_micro_batches": 6, "rampup_batch_size": RampUp(6, 6, 36), "pack": True}
        for rank in range(num_ranks):
            features = training(source, 18 // num_ranks, rank=rank, **shape)
            for update, batch in enumerate(run_training(features, 8)):
                numbers, splits = record_numbers(batch), batch["example_splits"]
                parts = [numbers[a:b] for a, b in zip(splits, splits[1:])]
                per_update.setdefault((num_ranks, update), []).extend(parts)
    assert all(per_update[1, update] == per_update[2, update] for update in range(8))


def test_records_of_the_first_updates_are_cut(make_source):
    """Records of up to 16 tokens; updates of 4: 6 tokens until 8 examples are read, 11 until 16, then all."""
    source = make_source(20, 11)
    whole = run_training(training(source, pack=True), 6)
    cut = run_training(training(source, pack=True, rampup_seq_length=RampUp(6, 5, 16)), 6)
    for update, (found, all_of_it) in enumerate(zip(cut, whole)):
        most = [6, 6, 11, 11, 16, 16][update]
        lengths, before = (
            dict(zip(record_numbers(batch), example_lengths(batch).tolist())) for batch in (found, all_of_it)
        )
        assert lengths == {number: min(most, length) for number, length in before.items()}
    for name in Batch._fields:
        np.testing.assert_array_equal(cut[5][name], whole[5][name], err_msg=name)


def example_lengths(features):
    """Tokens of each example, in the order of cls_positions."""
    ids = features["example_ids"]
    row = features["cls_positions"] // ids.shape[1]
    return np.count_nonzero(ids[row] == ids.reshape(-1)[features["cls_positions"]][:, None], axis=1)


def test_the_initializer_takes_the_input_back(make_source):
    features = training(make_source(13), first_update=2)
    with tf.Graph().as_default():
        tensors = features()
        with tf.compat.v1.Session() as session:
            session.run(features.initializer)
            first = session.run(tensors["token_ids"])
            session.run(features.initializer)
            np.testing.assert_array_equal(session.run(tensors["token_ids"]), first)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_an_epoch_visits_every_record_once_whatever_the_number_of_ranks(make_source, num_ranks):
    source = make_source(20, 3, 1)
    per_rank = 12 // num_ranks
    ranks = [training(source, per_rank, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    visited = [number for rank in ranks for batch in run_training(rank, 2) for number in record_numbers(batch)]
    assert sorted(visited) == list(range(24))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_evaluation_sees_each_of_1003_examples_once(make_source, num_ranks):
    source = make_source(600, 403)
    seen = []
    for rank in range(num_ranks):
        share = EvaluationInput(source, batch_size=24, pack=True, rank=rank, num_ranks=num_ranks)
        assert share.num_examples == 1003
        (batches,) = run_evaluation(share)
        assert all(len(batch["row_splits"]) == 2 for batch in batches)
        assert [len(batch["cls_positions"]) for batch in batches[:-1]] == [24] * (len(batches) - 1)
        seen += [number for batch in batches for number in record_numbers(batch)]
    assert sorted(seen) == list(range(1003))


def test_evaluation_starts_over_with_its_initializer(make_source):
    first, second = run_evaluation(EvaluationInput(make_source(11), batch_size=4, pack=False), times=2)
    assert [record_numbers(batch) for batch in first] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [record_numbers(batch) for batch in second] == [record_numbers(batch) for batch in first]


@pytest.mark.parametrize("max_examples, expected", [(5, 5), (100, 11), (None, 11)])
def test_evaluation_takes_the_first_examples(make_source, max_examples, expected):
    source = EvaluationInput(make_source(11), batch_size=4, pack=False, max_examples=max_examples)
    (batches,) = run_evaluation(source)
    assert source.num_examples == expected
    assert [number for batch in batches for number in record_numbers(batch)] == list(range(expected))


def test_a_rank_without_a_share_sees_nothing(make_source):
    source = EvaluationInput(make_source(2), batch_size=4, pack=False, rank=0, num_ranks=3)
    assert run_evaluation(source) == [[]]
    assert source.num_examples == 2


def test_shapes_and_types_are_known_where_they_can_be(make_source):
    source = make_source(11)
    with tf.Graph().as_default():
        features = training(source)()
        assert features["token_ids"].shape.as_list() == [None, None]
        assert features["cls_positions"].shape.as_list() == [4]
        assert features["masked_positions"].shape.as_list() == [None]
        assert features["masked_weights"].dtype == tf.float32
        assert features["row_splits"].dtype == tf.int32
        assert features["input_wait_seconds"].shape.as_list() == []


def test_waiting_is_the_time_from_asking_to_having(make_source, monkeypatch):
    source = make_source(11)
    waits = [batch["input_wait_seconds"] for batch in run_training(training(source), 3)]
    assert 0 < waits[0] < 60  # nothing is read before the first batch is asked for
    read = source.index.read

    def slow_read(numbers):
        time.sleep(0.3)
        return read(numbers)

    monkeypatch.setattr(source.index, "read", slow_read)
    (wait,) = (batch["input_wait_seconds"] for batch in run_training(training(source), 1))
    assert wait > 0.29


def test_records_of_an_update_are_named_by_file_and_number(make_source, directory):
    features = training(make_source(4, 4))
    for record, name in zip(features.records(3), features.record_names(3)):
        assert name == f"{directory}/part-{record // 4}:{record % 4}"


def test_entering_a_pool_reads_the_next_one_ahead(make_source, monkeypatch):
    monkeypatch.setattr(input_fn.threading, "Thread", RunAtOnce)
    source = make_source(70, 10)
    asked = []
    monkeypatch.setattr(source.index, "will_need", lambda blocks: asked.append(sorted(blocks.first.tolist())))
    features = training(source, examples_per_rank=40)
    for update, expected in [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4)]:  # 80 records, one pool an epoch
        features._read_update(update)
        assert asked == [[0, 64, 70]] * expected


class RunAtOnce:
    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)


def test_lengths_come_from_the_data(make_source):
    source = make_source(3)
    assert source.lengths == Lengths(SEQ_LENGTH, MAX_PREDICTIONS)
    flags = DataConfig(max_seq_length=SEQ_LENGTH, max_predictions_per_seq=MAX_PREDICTIONS)
    assert dataset.read_lengths(source.index, flags) == source.lengths


@pytest.mark.parametrize("flag, stored", [("max_seq_length", SEQ_LENGTH), ("max_predictions_per_seq", MAX_PREDICTIONS)])
def test_a_flag_that_contradicts_the_data_is_named_with_both_numbers(make_source, directory, flag, stored):
    index = make_source(3).index
    with pytest.raises(ValueError, match=rf"^--{flag} is 80, .*{directory}/part-0 have {stored};"):
        dataset.read_lengths(index, DataConfig(**{flag: 80}))


def test_shards_of_different_lengths_are_named(make_source, make_examples, directory):
    make_source(3)
    write_shard(str(directory / "part-1"), schema.encode_examples(make_examples([4], 32, 5)))
    with pytest.raises(ValueError, match=rf"^{directory}/part-1:0: .* 32 .* 5 .*{directory}/part-0 have 16 and 3"):
        Source.open([str(directory)], DataConfig(), LIMITS)


def failure_of(source):
    """The error line when the input of one update over all records fails."""
    with pytest.raises((tf.errors.OpError, UnicodeDecodeError)) as raised:
        run_training(training(source, source.index.num_records), 1)
    explanation = explain_input_error(raised.value)
    assert isinstance(explanation, ValueError)
    assert "\n" not in str(explanation)
    return str(explanation)


def spoil_second(change):
    def spoil(records):
        example = tf.train.Example.FromString(records[1])
        change(example.features.feature)
        records[1] = example.SerializeToString()

    return spoil


def test_a_record_of_other_length_is_explained(make_source):
    source = make_source(3, spoil=spoil_second(lambda feature: feature["input_ids"].int64_list.value.append(1)))
    assert failure_of(source) == (
        f"{source.index.names(np.array([1]))[0]}: input_ids has 17 values, the first record of the data has 16; "
        f"train on records of one length at a time"
    )


def test_a_record_without_a_feature_is_explained(make_source):
    source = make_source(3, spoil=spoil_second(lambda feature: feature.pop("segment_ids")))
    assert failure_of(source).startswith(f"{source.index.names(np.array([1]))[0]}: feature segment_ids is missing")


def test_a_record_with_a_feature_of_another_type_is_explained(make_source):
    source = make_source(3, spoil=spoil_second(lambda feature: feature["segment_ids"].float_list.value.extend([0.0])))
    assert failure_of(source).startswith(f"{source.index.names(np.array([1]))[0]}: segment_ids holds float ")


def test_a_record_that_is_no_message_is_explained(make_source):
    def spoil(records):
        records[1] = b"\xff\xff\xff"

    def spoil_feature(records):
        records[1] = records[1].replace(b"input_mask\x12\x14\x1a\x12\n\x10", b"input_mask\x12\x14\0\0\0\0")

    for spoiled in (spoil_feature, spoil):
        assert failure_of(make_source(3, spoil=spoiled)).startswith("a record is not a tf.train.Example ")


def test_a_feature_whose_values_are_no_message_is_explained(make_source):
    def spoil(records):
        records[1] = records[1].replace(b"\n\x0c\x00\x00\x80?", b"\x00\x00\x00\x00\x80?")  # of masked_lm_weights

    source = make_source(3, spoil=spoil)
    assert failure_of(source).startswith(f"{source.index.names(np.array([1]))[0]}: masked_lm_weights cannot be read ")


def test_a_token_outside_the_vocabulary_is_explained(make_source):
    source = make_source(3, limits=Limits(vocab_size=2, type_vocab_size=2))
    name = source.index.names(np.array([1]))[0]
    assert failure_of(source).startswith(f"{name}: input_ids has 2 at index 0; it must be in [0, 2): ")


def test_a_token_beyond_int32_does_not_wrap_into_a_valid_one(make_source):
    def spoil(records):
        record = tf.train.Example.FromString(records[1])
        record.features.feature["input_ids"].int64_list.value[2] = 2**32 + 7
        records[1] = record.SerializeToString()

    explanation = failure_of(make_source(3, spoil=spoil))
    assert "input_ids has 2147483647 or more at index 2; it must be in [0, " in explanation


def test_a_damaged_record_is_explained(make_source, directory):
    source = make_source(3)
    begin = source.index.locate(2).offset
    with open(directory / "part-0", "r+b") as file:
        file.seek(begin + 30)
        file.write(b"\xff\xff")
    assert failure_of(source).startswith(f"{directory}/part-0:{begin}: the record at this byte is damaged; ")


def test_what_the_input_is_not_to_blame_for_is_not_explained():
    assert explain_input_error(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")) is None
    assert explain_input_error(tf.errors.OutOfRangeError(None, None, "End of sequence")) is None
    assert explain_input_error(RuntimeError("something else")) is None


def test_estimator_takes_it_as_an_input_fn(make_source, tmp_path):
    seen = []

    def model_fn(features, mode):
        step = tf.compat.v1.train.get_or_create_global_step()
        keep = tf.numpy_function(lambda ids: seen.append(ids) or np.int64(0), [features["token_ids"]], tf.int64)
        with tf.control_dependencies([keep]):
            update = tf.compat.v1.assign_add(step, 1)
        return estimator.EstimatorSpec(mode, loss=tf.constant(0.0), train_op=update)

    source = make_source(11)
    estimator.Estimator(model_fn, str(tmp_path / "model")).train(training(source, first_update=2), max_steps=3)
    expected = run_training(training(source, first_update=2), 3)
    for ids, batch in zip(seen, expected):
        np.testing.assert_array_equal(ids, batch["token_ids"])
    assert len(seen) == 3
