import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_pretrain.data import vocab
from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data import tokenization
from bert_pretrain.make_data.tokenization import LineTokenizer

PIECES = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "the", "naive", "cafe", "Café", "σ", "ς"]
    + ["οδος", "οδοσ", "i", "ss", "ß", "##ß", "한", "##국", "ᄒ", "##ᅡ", "##ᆫ", "中", "文", "か", "##が", "क", "##ि"]
    + list("abcdefghijklmnopqrstuvwxyzABZ0123456789.,!?-'$^`~[]()。—“”") + [f"##{c}" for c in "abcdefghij0123456789ÅÉé"]
    + ["\u0301", "##\u0301", "\ue000", "😀", "##\u200d", "\U0002b920", "\U0002b820", "ﬁ", "##ﬁ", "İ", "ı"]
)  # fmt: skip
HARD = (
    [chr(code) for code in range(0, 256)]
    + list("ÅÉéñçŞşİıßẞΣσςΌдЙйЁ中文字한국어가かがガक्षिไทยאבגعربيﬁﬀ①²½ªº…—–“”«»¿¡。，！？、")
    + list("\u0300\u0301\u0327\u00ad\u200b\u200c\u200d\u200e\u2028\u2029\u2060\ufeff\ufffd\ufffe\u0378\ue000\u180e")
    + list("\u00a0\u1680\u2000\u2009\u202f\u205f\u3000\x1c\x1d\x85\U0001f600\U0001f468\U0002b920\U0002b820\U0002ceb0")
    + ["unaffable", "the", "THE", "ΟΔΟΣ", "ὈΔΥΣΣΕΎΣ", "Café", "\U0001f468\u200d\U0001f469", "[MASK]", "[unused1]"]
    + ["a" * 200, "a" * 201, "é" * 200, "é" * 201, " ", "  "]
)
LINES = st.lists(st.one_of(st.sampled_from(HARD), st.text(max_size=8)), max_size=30).map(
    lambda parts: "".join(parts).replace("\n", "")
)


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def tokenizers(request, tmp_path_factory):
    """Ours and Google's, for one vocabulary."""
    google = pytest.importorskip("bert.tokenization", reason="needs bert-tensorflow==1.0.4")
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(PIECES)) + "\n", encoding="utf-8")
    ours = LineTokenizer(vocab.load_vocabulary(str(path)), request.param)
    return ours, google.FullTokenizer(str(path), request.param)


@settings(max_examples=400, deadline=None)
@given(lines=st.lists(LINES, min_size=1, max_size=4))
@example(lines=["", "", "a", ""])
@example(lines=["ΟΔΟΣ ΟΔΟΣ. ΟΔΟΣ\u2028ΟΔΟΣ\x1cΣ"])
def test_ids_equal_googles(tokenizers, lines):
    ours, google = tokenizers
    ids, lengths = ours.encode(lines)
    expected = [google.convert_tokens_to_ids(google.tokenize(line)) for line in lines]
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == [number for line in expected for number in line]


def test_every_character_equals_googles(tokenizers):
    ours, google = tokenizers
    generator = random.Random(1)
    characters = [chr(c) for c in range(0x20000) if c != 10 and not 0xD800 <= c < 0xE000]
    generator.shuffle(characters)
    lines = ["a".join(characters[start : start + 64]) for start in range(0, len(characters), 64)]
    ids, _ = ours.encode(lines)
    expected = [google.convert_tokens_to_ids(google.tokenize(line)) for line in lines]
    assert ids.tolist() == [number for line in expected for number in line]


def test_forgetting_changes_nothing(monkeypatch):
    lines = [f"the unaffable {number} cafe" for number in range(50)]
    vocabulary = Vocabulary(tuple(dict.fromkeys(PIECES)))
    kept = LineTokenizer(vocabulary, True).encode(lines)
    monkeypatch.setattr(tokenization, "_MAX_CACHED_PIECES", 5)
    tokenizer = LineTokenizer(vocabulary, True)
    parts = [tokenizer.encode(lines[start : start + 10]) for start in range(0, 50, 10)]
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in parts]), kept[0])


def test_no_lines_no_tokens():
    ids, lengths = LineTokenizer(Vocabulary(tuple(dict.fromkeys(PIECES))), True).encode([])
    assert (len(ids), len(lengths)) == (0, 0)
