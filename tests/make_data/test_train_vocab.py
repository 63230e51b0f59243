"""Training a vocabulary."""

import random
import subprocess
import sys

import pytest

from bert_pretrain.data import vocab
from bert_pretrain.make_data import train_vocab
from bert_pretrain.make_data.tokenization import LineTokenizer


def test_trained_vocabulary_depends_on_the_text_alone(tmp_path):
    generator = random.Random(0)
    syllables = ["ba", "lo", "mi", "ter", "Sun", "é"]
    lines = ["".join(generator.choices(syllables, k=3)) + " " + generator.choice(syllables) + "." for _ in range(400)]
    vocabulary = train_vocab.train_vocabulary(lines, 80, lower_case=True)
    assert vocabulary.entries[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(vocabulary.entries) == len(set(vocabulary.entries)) == 80
    assert "sun" in vocabulary.entries and "##lo" in vocabulary.entries
    assert train_vocab.train_vocabulary(lines[::-1], 80, lower_case=True) == vocabulary
    vocab.write_vocabulary(str(tmp_path / "vocab.txt"), vocabulary)
    assert vocab.load_vocabulary(str(tmp_path / "vocab.txt")) == vocabulary
    ids, _ = LineTokenizer(vocabulary, True).encode(lines)
    assert vocabulary.id("[UNK]") not in ids
    assert any("S" in entry for entry in train_vocab.train_vocabulary(lines, 80, lower_case=False).entries[5:])


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="--vocab_size 7 is too small: 11 entries"):
        train_vocab.train_vocabulary(["abc"], 7, lower_case=True)


def test_memory_does_not_grow_with_the_occurrences_of_a_word():
    program = """
import itertools, resource
from bert_pretrain.make_data import train_vocab
train_vocab.train_vocabulary(["the cat, the hat"], 30, lower_case=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train_vocab.train_vocabulary(itertools.repeat("the " * 1000 + "the, " * 1000, 1000), 30, lower_case=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, f"{done.stdout} MB for two million words"
