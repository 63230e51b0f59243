"""Training a WordPiece vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary
from bert_pretrain.make_data.merges import learn_entries
from bert_pretrain.make_data.word_counts import count_words


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines in any order.

    Memory grows with the number of distinct words. ValueError if size is too small for the characters of the text.
    """
    return vocabulary_of_words(count_words(lines, lower_case), size)


def vocabulary_of_words(counts: Mapping[str, int], size: int) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries for words that occur so often.

    There are fewer entries where no two pieces of a word are left to join. ValueError if size is too small for the
    characters of the words.
    """
    alphabet = sorted(set().union(*counts))
    first = [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]
    if size <= len(first):
        raise ValueError(f"--vocab_size {size} is too small: {len(first)} entries are single characters of this text")
    numbers = np.fromiter(counts.values(), np.int64, len(counts))
    return Vocabulary(tuple(learn_entries(list(counts), numbers, first, size)))
