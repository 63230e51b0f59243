"""Training a vocabulary: its entries are compared with those of the tokenizers library, which learns from text."""

import random
import subprocess
import sys
from collections import Counter
from pydoc_data.topics import topics

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, models, trainers

from bert_pretrain.data import vocab
from bert_pretrain.data.vocab import SPECIAL_TOKENS
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.vocabulary import training
from bert_pretrain.make_data.vocabulary.training import vocabulary_of_words
from bert_pretrain.make_data.vocabulary.word_counts import count_words

COUNTS = st.dictionaries(st.text("aabcé中", min_size=1, max_size=12), st.integers(1, 40), min_size=1, max_size=60)


def first_entries(counts):
    alphabet = sorted(set().union(*counts))
    return [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]


def entries_of_library(counts, size):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    # Without the special tokens the library numbers ## characters in an order that differs from run to run.
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first_entries(counts), show_progress=False)
    tokenizer.train_from_iterator(([word] * count for word, count in counts.items()), trainer)
    numbered = tokenizer.get_vocab()
    return tuple(sorted(numbered, key=numbered.__getitem__))


def mixed_scripts():
    """Short words of many scripts, as often as Zipf's law has it."""
    rng = random.Random(0)
    scripts = ["etaoinshrdlu", "оеаинтсрвлкм", "αοιετσνηυρπκ", "かのにたてしはい", "한국어의는이가", "ابتثجح"]
    words = ["".join(rng.choices(rng.choice(scripts), k=rng.randint(1, 9))) for _ in range(3000)]
    return Counter({word: 1 + 3000 // number for number, word in enumerate(words, start=1)})


@pytest.mark.parametrize("lower_case", [True, False])
def test_entries_of_a_real_text_equal_the_librarys(lower_case):
    counts = count_words(topics.values(), lower_case)
    assert vocabulary_of_words(counts, 6000).entries == entries_of_library(counts, 6000)


def test_entries_of_many_scripts_equal_the_librarys():
    counts = mixed_scripts()
    assert vocabulary_of_words(counts, 2000).entries == entries_of_library(counts, 2000)


@settings(max_examples=150, deadline=None)
@given(counts=COUNTS, num_more=st.integers(1, 80))
def test_entries_of_any_words_equal_the_librarys(counts, num_more):
    """Also repeated characters, whose pairs overlap, and sizes that the words cannot fill."""
    size = len(first_entries(counts)) + num_more
    assert vocabulary_of_words(counts, size).entries == entries_of_library(counts, size)


def test_counts_may_exceed_32_bits():
    counts = {"abc": 1 << 40, "abd": (1 << 40) + 1, "xy": 1 << 39}
    entries = vocabulary_of_words(counts, 5 + 12 + 4).entries
    assert entries[-4:] == ("ab", "abd", "abc", "xy")


def test_trained_vocabulary_depends_on_the_text_alone(tmp_path):
    generator = random.Random(0)
    syllables = ["ba", "lo", "mi", "ter", "Sun", "é"]
    lines = ["".join(generator.choices(syllables, k=3)) + " " + generator.choice(syllables) + "." for _ in range(400)]
    vocabulary = training.train_vocabulary(lines, 80, lower_case=True)
    assert vocabulary.entries[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(vocabulary.entries) == len(set(vocabulary.entries)) == 80
    assert "sun" in vocabulary.entries and "##lo" in vocabulary.entries
    assert training.train_vocabulary(lines[::-1], 80, lower_case=True) == vocabulary
    vocab.write_vocabulary(str(tmp_path / "vocab.txt"), vocabulary)
    assert vocab.load_vocabulary(str(tmp_path / "vocab.txt")) == vocabulary
    ids, _ = LineTokenizer(vocabulary, True).encode(lines)
    assert vocabulary.id("[UNK]") not in ids
    assert any("S" in entry for entry in training.train_vocabulary(lines, 80, lower_case=False).entries[5:])


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="--vocab_size 7 is too small: 11 entries"):
        training.train_vocabulary(["abc"], 7, lower_case=True)


def test_memory_does_not_grow_with_the_occurrences_of_a_word():
    program = """
import itertools, resource
from bert_pretrain.make_data.vocabulary import training as train_vocab
train_vocab.train_vocabulary(["the cat, the hat"], 30, lower_case=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
train_vocab.train_vocabulary(itertools.repeat("the " * 1000 + "the, " * 1000, 1000), 30, lower_case=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, f"{done.stdout} MB for two million words"
