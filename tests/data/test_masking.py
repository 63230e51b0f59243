import numpy as np
import pytest

from bert_pretrain.data.masking import MaskingRule, mask_tokens
from bert_pretrain.make_data.shards.instances import Instances

CLS, SEP, MASK, VOCAB = 2, 3, 4, 1000
REPLACEMENTS = np.arange(VOCAB, dtype=np.int32)


def make_instances(num_examples, seq_length, seed=0):
    """Random words, ids from 5 on; an id that is a multiple of 3 goes on with a word."""
    rng = np.random.default_rng(seed)
    num_tokens = rng.integers(5, seq_length + 1, num_examples)
    num_first = rng.integers(3, num_tokens - 1)
    column = np.arange(seq_length)
    ids = np.where(column < num_tokens[:, None], rng.integers(5, VOCAB, (num_examples, seq_length)), 0)
    row = np.arange(num_examples)
    ids[:, 0], ids[row, num_first - 1], ids[row, num_tokens - 1] = CLS, SEP, SEP
    return Instances(ids.astype(np.int32), num_first, num_tokens, rng.random(num_examples) < 0.5)


CONTINUES_WORD = np.arange(VOCAB) % 3 == 0
CONTINUES_WORD[[0, CLS, SEP]] = False
RULES = {
    "tokens": MaskingRule(0.15, 20, MASK, REPLACEMENTS),
    "words": MaskingRule(0.15, 20, MASK, REPLACEMENTS, CONTINUES_WORD),
}


@pytest.fixture(params=sorted(RULES))
def rule(request):
    return RULES[request.param]


def test_labels_are_what_stood_there_and_nothing_else_changed(rule):
    instances = make_instances(500, 128)
    found = mask_tokens(instances, rule, np.random.default_rng(1))
    restored = found.input_ids.copy()
    for row, num_masked in enumerate(found.num_masked):
        positions, ids = found.positions[row, :num_masked], found.ids[row, :num_masked]
        assert (np.diff(positions) > 0).all()
        assert not np.isin(ids, [0, CLS, SEP]).any() and (positions < instances.num_tokens[row]).all()
        assert not found.positions[row, num_masked:].any() and not found.ids[row, num_masked:].any()
        restored[row, positions] = ids
    np.testing.assert_array_equal(restored, instances.ids)


def test_number_of_predictions(rule):
    instances = make_instances(500, 160)
    found = mask_tokens(instances, rule, np.random.default_rng(1))
    wanted = np.clip([round(length * 0.15) for length in instances.num_tokens], 1, 20)
    num_words = instances.num_tokens - 3
    if rule.continues_word is None:
        np.testing.assert_array_equal(found.num_masked, np.minimum(wanted, num_words))
    else:
        assert (found.num_masked <= wanted).all()
        assert found.num_masked.sum() > 0.95 * wanted.sum()


def test_more_slots_than_tokens():
    found = mask_tokens(make_instances(20, 8), MaskingRule(1.0, 20, MASK, REPLACEMENTS), np.random.default_rng(1))
    assert found.positions.shape == (20, 20)
    assert found.num_masked.max() == 5


def test_eighty_ten_ten(rule):
    instances = make_instances(6000, 128)
    found = mask_tokens(instances, rule, np.random.default_rng(2))
    used = np.arange(20) < found.num_masked[:, None]
    now = np.take_along_axis(found.input_ids, found.positions, axis=1)[used]
    before = found.ids[used]
    assert len(now) > 50_000
    assert (now == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (now == before).mean() == pytest.approx(0.1, abs=0.01)
    other = now[(now != MASK) & (now != before)]
    assert len(other) / len(now) == pytest.approx(0.1, abs=0.01)
    assert other.min() < 20 and other.max() > VOCAB - 20 and other.mean() == pytest.approx(VOCAB / 2, rel=0.05)


def test_every_place_is_equally_likely():
    instances = make_instances(1, 128)
    many = Instances(*(np.repeat(column, 20_000, axis=0) for column in instances))
    found = mask_tokens(many, RULES["tokens"], np.random.default_rng(3))
    num_tokens, num_masked = int(instances.num_tokens[0]), int(found.num_masked[0])
    counts = np.bincount(found.positions[:, :num_masked].ravel(), minlength=128)
    choosable = np.ones(num_tokens, bool)
    choosable[[0, instances.num_first[0] - 1, num_tokens - 1]] = False
    expected = 20_000 * num_masked / choosable.sum()
    assert np.abs(counts[:num_tokens][choosable] - expected).max() < 5 * np.sqrt(expected)
    assert not counts[:num_tokens][~choosable].any() and not counts[num_tokens:].any()


def test_words_are_masked_whole_and_greedily():
    """No word is cut, and none that was left out would still have fitted."""
    instances = make_instances(400, 96)
    found = mask_tokens(instances, RULES["words"], np.random.default_rng(4))
    for row in range(400):
        columns = [c for c in range(instances.num_tokens[row]) if instances.ids[row, c] not in (CLS, SEP)]
        words = []
        for column in columns:
            if words and CONTINUES_WORD[instances.ids[row, column]]:
                words[-1].append(column)
            else:
                words.append([column])
        chosen = set(found.positions[row, : found.num_masked[row]].tolist())
        assert all(chosen.issuperset(word) or chosen.isdisjoint(word) for word in words)
        room = int(np.clip(round(int(instances.num_tokens[row]) * 0.15), 1, 20)) - len(chosen)
        assert all(len(word) > room for word in words if chosen.isdisjoint(word))


def test_same_generator_same_masks(rule):
    instances = make_instances(30, 64)
    one, two = (mask_tokens(instances, rule, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.input_ids, two.input_ids)


def test_only_the_rules_replacements_replace_tokens():
    instances = make_instances(400, 64)
    allowed = REPLACEMENTS[::7]
    found = mask_tokens(instances, MaskingRule(0.15, 20, MASK, allowed), np.random.default_rng(1))
    changed = found.input_ids[found.input_ids != instances.ids]
    others = changed[changed != MASK]
    assert len(others) > 100 and np.isin(others, allowed).all() and len(set(others.tolist())) > 50
