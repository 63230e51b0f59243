"""Dynamic masking: the rule, its random numbers, and the same masks however an update is divided."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.training import DataConfig, MaskingConfig
from bert_pretrain.data import schema
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.dynamic_masking import DynamicMasking, HashDraws, original_tokens
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.masking import MaskingRule, mask_tokens
from bert_pretrain.data.order import Visits
from bert_pretrain.data.schema import Batch, Examples, Limits, explain_input_error
from bert_pretrain.data.shards.tfrecord import write_shard
from tests.data.test_masking import CLS, CONTINUES_WORD, MASK, REPLACEMENTS, RULES, SEP, VOCAB, make_instances

SEQ_LENGTH, MAX_PREDICTIONS = 64, 9
RULE = MaskingRule(0.15, MAX_PREDICTIONS, MASK, REPLACEMENTS)
MASKING = DynamicMasking(RULE, CLS, SEP, VOCAB, seed=7)


def make_examples(instances, rule=RULE, seed=1) -> Examples:
    """Examples with static masks, as make_data makes them."""
    masked = mask_tokens(instances, rule, np.random.default_rng(seed))
    column = np.arange(instances.ids.shape[1])
    is_token = column < instances.num_tokens[:, None]
    used = np.arange(masked.positions.shape[1]) < masked.num_masked[:, None]
    return Examples(
        masked.input_ids.astype(np.int32),
        is_token.astype(np.int32),
        (is_token & (column >= instances.num_first[:, None])).astype(np.int32),
        masked.positions.astype(np.int32),
        masked.ids.astype(np.int32),
        used.astype(np.float32),
        instances.is_random_next.astype(np.int32),
    )


def visits_of(count: int, epoch: int = 0) -> Visits:
    return Visits(np.arange(count), np.full(count, epoch))


def redraw(examples: Examples, visits: Visits, masking: DynamicMasking = MASKING) -> Examples:
    return masking.redraw(examples, visits, [f"record {record}" for record in visits.records])


def rows_of(examples: Examples, rows) -> Examples:
    return Examples(*(column[rows] for column in examples))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(RULES)), st.floats(0, 1), st.integers(1, 40))
def test_undoing_static_masks_gives_the_original_tokens(seed, kind, share, max_predictions) -> None:
    instances = make_instances(8, 40, seed)
    rule = RULES[kind]._replace(masked_lm_prob=share, max_predictions_per_seq=max_predictions)
    examples = make_examples(instances, rule, seed)
    np.testing.assert_array_equal(original_tokens(examples), instances.ids)
    # A drawn record can be drawn again: its labels, too, are the original tokens.
    redrawn = redraw(examples, visits_of(8), MASKING._replace(rule=rule))
    np.testing.assert_array_equal(original_tokens(redrawn), instances.ids)


def test_the_number_of_masks_and_what_is_never_masked() -> None:
    instances = make_instances(800, SEQ_LENGTH)
    redrawn = redraw(make_examples(instances), visits_of(800))
    expected = [min(MAX_PREDICTIONS, max(1, round(int(n) * 0.15)), int(n) - 3) for n in instances.num_tokens]
    np.testing.assert_array_equal(redrawn.masked_lm_weights.sum(axis=1), expected)
    used = redrawn.masked_lm_weights > 0
    assert not np.isin(redrawn.masked_lm_ids[used], [0, CLS, SEP]).any()
    assert not redrawn.masked_lm_positions[~used].any() and not redrawn.masked_lm_ids[~used].any()
    assert [column.dtype for column in redrawn] == [column.dtype for column in make_examples(instances)]
    for name in ("input_mask", "segment_ids", "next_sentence_labels"):
        np.testing.assert_array_equal(getattr(redrawn, name), getattr(make_examples(instances), name))


def test_more_tokens_than_the_records_have_slots_can_be_masked() -> None:
    instances = make_instances(300, SEQ_LENGTH)
    examples = make_examples(instances)
    redrawn = redraw(examples, visits_of(300), MASKING._replace(rule=MaskingRule(0.5, SEQ_LENGTH, MASK, REPLACEMENTS)))
    expected = [min(max(1, round(int(n) * 0.5)), int(n) - 3) for n in instances.num_tokens]
    np.testing.assert_array_equal(redrawn.masked_lm_weights.sum(axis=1), expected)
    assert max(expected) > MAX_PREDICTIONS
    np.testing.assert_array_equal(original_tokens(redrawn), original_tokens(examples))


def test_eighty_ten_ten_and_every_place_is_equally_likely() -> None:
    one = make_instances(1, 120, seed=3)
    many = type(one)(*(np.repeat(column, 20_000, axis=0) for column in one))
    redrawn = redraw(make_examples(many, RULES["tokens"]), visits_of(20_000), MASKING._replace(rule=RULES["tokens"]))
    used = redrawn.masked_lm_weights > 0
    now = np.take_along_axis(redrawn.input_ids, redrawn.masked_lm_positions, axis=1)[used]
    before = redrawn.masked_lm_ids[used]
    assert len(now) > 100_000
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.005)
    assert (now == before).mean() == pytest.approx(0.1, abs=0.005)
    other = now[(now != MASK) & (now != before)]
    counts = np.bincount(other, minlength=VOCAB)
    # Chi-squared over the entries, of which [MASK] is not told apart: 996 degrees of freedom, 5 deviations.
    seen = np.delete(counts, [MASK])
    assert np.sum((seen - seen.mean()) ** 2) / seen.mean() < 996 + 5 * np.sqrt(2 * 996)
    places = np.bincount(redrawn.masked_lm_positions[used], minlength=120)
    choosable = one.choosable()[0]
    expected = used.sum() / choosable.sum()
    assert np.abs(places[choosable] - expected).max() < 5 * np.sqrt(expected)
    assert not places[~choosable].any()


def test_hashed_numbers_are_uniform_and_those_of_neighbours_unrelated() -> None:
    draws = HashDraws(0, visits_of(2000))
    first, second = draws.random((2000, 64), np.float32), draws.random((2000, 64), np.float32)
    epoch = HashDraws(0, visits_of(2000, epoch=1)).random((2000, 64), np.float32)
    assert first.min() >= 0 and first.max() < 1
    bins = np.bincount((first.ravel() * 256).astype(int), minlength=256)
    assert np.sum((bins - 500) ** 2) / 500 < 255 + 5 * np.sqrt(2 * 255)
    bound = 5 / np.sqrt(first.size)
    for other in (second, epoch, np.roll(first, 1, axis=0), np.roll(first, 1, axis=1)):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < bound


def test_masks_differ_between_epochs_records_and_seeds() -> None:
    instances = make_instances(1, SEQ_LENGTH, seed=5)
    same = type(instances)(*(np.repeat(column, 50, axis=0) for column in instances))  # one text as fifty records
    examples = make_examples(same)
    first = redraw(examples, visits_of(50))
    assert len({row.tobytes() for row in first.input_ids}) > 45
    for other in (
        redraw(examples, visits_of(50, epoch=1)),
        redraw(examples, visits_of(50), MASKING._replace(seed=8)),
    ):
        assert (first.input_ids != other.input_ids).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("kind", sorted(RULES))
def test_a_record_s_masks_do_not_depend_on_the_records_beside_it(kind) -> None:
    masking = MASKING._replace(rule=RULES[kind])
    examples, visits = make_examples(make_instances(60, 128)), Visits(np.arange(60) * 7, np.arange(60) % 3)
    together = redraw(examples, visits, masking)
    order = np.random.default_rng(0).permutation(60)
    for part in np.array_split(order, 7):
        alone = redraw(rows_of(examples, part), Visits(*(column[part] for column in visits)), masking)
        for column, expected in zip(alone, rows_of(together, part)):
            np.testing.assert_array_equal(column, expected)


def test_whole_words_are_masked_whole() -> None:
    instances = make_instances(300, 96)
    redrawn = redraw(make_examples(instances), visits_of(300), MASKING._replace(rule=RULES["words"]))
    choosable = instances.choosable()
    goes_on = (
        choosable[:, 1:] & choosable[:, :-1] & CONTINUES_WORD[instances.ids[:, 1:]]
    )  # a column with the one before
    is_masked = np.zeros_like(choosable)
    row, slot = np.nonzero(redrawn.masked_lm_weights)
    is_masked[row, redrawn.masked_lm_positions[row, slot]] = True
    assert goes_on.sum() > 3000
    np.testing.assert_array_equal(is_masked[:, 1:][goes_on], is_masked[:, :-1][goes_on])


# --- Through the input of training ---


@pytest.fixture
def make_source(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))

    def make(num_records: int = 21, vocab_size: int = VOCAB) -> Source:
        directory = tmp_path / "data"
        directory.mkdir()
        records = schema.encode_examples(make_examples(make_instances(num_records, SEQ_LENGTH)))
        write_shard(str(directory / "part-0"), records[: num_records // 3])
        write_shard(str(directory / "part-1"), records[num_records // 3 :])
        return Source.open([str(directory)], DataConfig(), Limits(vocab_size, 2))

    return make


def masked_examples(source: Source, num_updates: int, masking=MASKING, first_update: int = 0, **division) -> list[list]:
    """Each update's examples as (tokens, masked columns, labels), sorted, over all ranks of `division`."""
    num_ranks, per_rank, rows, pack = (division[name] for name in ("W", "E", "B", "pack"))
    found: list[list] = [[] for _ in range(num_updates)]
    for rank in range(num_ranks):
        inputs = TrainingInput(source, UpdateShape(per_rank, rows, pack, rank, num_ranks), 7, first_update, masking)
        with tf.Graph().as_default():
            features = inputs()
            with tf.compat.v1.Session() as session:
                session.run(inputs.initializer)
                for examples in found:
                    examples += examples_of(session.run({name: features[name] for name in Batch._fields}))
    return [sorted(examples) for examples in found]


def examples_of(batch: dict) -> list[tuple]:
    width = batch["token_ids"].shape[1]
    tokens, segments = batch["token_ids"].ravel(), batch["example_ids"].ravel()
    found = []
    for start in batch["cls_positions"].tolist():
        row_end = (start // width + 1) * width
        end = start + int((segments[start:row_end] == segments[start]).sum())
        here = (batch["masked_positions"] >= start) & (batch["masked_positions"] < end)
        columns = (batch["masked_positions"][here] - start).tolist()
        found.append((tokens[start:end].tolist(), columns, batch["masked_ids"][here].tolist()))
    return found


def test_an_update_has_the_same_masks_however_it_is_divided_and_wherever_it_is_resumed(make_source) -> None:
    source = make_source()  # 21 records in updates of 12: updates cross the ends of epochs
    whole = masked_examples(source, 6, W=1, E=12, B=12, pack=False)
    for division in ({"W": 1, "E": 12, "B": 3, "pack": True}, {"W": 2, "E": 6, "B": 2, "pack": True},
                     {"W": 3, "E": 4, "B": 4, "pack": False}, {"W": 12, "E": 1, "B": 1, "pack": True}):  # fmt: skip
        assert masked_examples(source, 6, **division) == whole
    assert masked_examples(source, 3, first_update=3, W=2, E=6, B=3, pack=True) == whole[3:]
    static = masked_examples(source, 6, masking=None, W=1, E=12, B=12, pack=False)
    assert static != whole


def test_each_epoch_masks_a_record_anew_and_a_visit_is_that_epoch_s(make_source) -> None:
    source = make_source()
    inputs = TrainingInput(source, UpdateShape(12, 12, pack=False), 7, masking=MASKING)
    updates = masked_examples(source, 7, W=1, E=12, B=12, pack=False)  # four epochs of 21
    visits = [visit for update in range(7) for visit in zip(*(column.tolist() for column in inputs.visits(update)))]
    assert sorted(visits) == [(record, epoch) for record in range(21) for epoch in range(4)]
    texts = [tuple(tokens) for update in updates for tokens, _, _ in update]
    assert len(set(texts)) > 0.95 * len(texts)  # of 84 visits to 21 records


def test_shards_of_another_vocabulary_are_one_line(make_source) -> None:
    source = make_source(6)
    for masking, wrong in (
        (MASKING._replace(cls_id=101), "[CLS], whose id is 101 "),
        (MASKING._replace(sep_id=102), "[SEP], whose id is 102 "),
        (MASKING._replace(num_entries=500), "--vocab_file has 500 entries"),
    ):
        with pytest.raises(tf.errors.OpError) as raised:
            masked_examples(source, 1, masking=masking, W=1, E=6, B=6, pack=False)
        line = str(explain_input_error(raised.value))
        assert wrong in line and "/data/part-" in line and "\n" not in line, line
        assert "--vocab_file" in line and "--dynamic_masking" in line


def write_vocabulary(path: Path) -> MaskingConfig:
    special = {CLS: "[CLS]", SEP: "[SEP]", MASK: "[MASK]", 0: "[PAD]", 1: "[UNK]"}
    entries = [
        special.get(number, f"##p{number}" if CONTINUES_WORD[number] else f"w{number}") for number in range(VOCAB)
    ]
    path.write_text("\n".join(entries) + "\n")
    return MaskingConfig(dynamic_masking=True, vocab_file=str(path))


def test_opening_takes_ids_from_the_vocabulary(make_source, tmp_path) -> None:
    config = write_vocabulary(tmp_path / "vocab.txt")
    source = make_source(6)
    masking = DynamicMasking.open(config, 7, source)
    np.testing.assert_array_equal(masking.rule.replacements, REPLACEMENTS)
    assert masking.rule.continues_word is None
    assert masking._replace(rule=RULE, fingerprint="") == MASKING
    assert masking.rule[:3] == RULE[:3]
    more = DynamicMasking.open(dataclasses.replace(config, max_masked_tokens=1000), 7, source)
    assert more.rule.max_predictions_per_seq == source.lengths.seq_length
    words = DynamicMasking.open(MaskingConfig(True, config.vocab_file, 0.15, True), 7, source)
    np.testing.assert_array_equal(words.rule.continues_word, CONTINUES_WORD)


def test_a_vocabulary_that_does_not_fit_is_one_line_before_anything_is_read(make_source, tmp_path) -> None:
    config, source = write_vocabulary(tmp_path / "vocab.txt"), make_source(6)
    side_file = Path(f"{source.index.paths[1]}.json")
    fingerprint = hashlib.sha256((tmp_path / "vocab.txt").read_bytes()).hexdigest()
    for content in (json.dumps({"origin": {"vocabulary": fingerprint}}), "{", "[]", '{"origin": {"vocabulary": 3}}'):
        side_file.write_text(content)
        DynamicMasking.open(config, 7, source)
    side_file.write_text(json.dumps({"origin": {"vocabulary": "f" * 64}}))
    with pytest.raises(ValueError, match=r"/part-1 .*/vocab.txt .*ffff"):
        DynamicMasking.open(config, 7, source)
    side_file.unlink()
    smaller = Source(source.index, source.lengths, Limits(999, 2))
    with pytest.raises(ValueError, match=r"1000 .* vocab_size 999"):
        DynamicMasking.open(config, 7, smaller)
    (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"has no \[UNK\], \[CLS\], \[SEP\], \[MASK\] among"):
        DynamicMasking.open(config, 7, source)
