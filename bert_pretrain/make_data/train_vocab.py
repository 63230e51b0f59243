"""Training a WordPiece vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary
from bert_pretrain.make_data.tokenization import split_words

_MAX_COUNTED_PIECES = 10_000_000  # about 1.5 GB
_PIECES_AT_ONCE = 100_000
_REPEATED_AT_ONCE = 10_000


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines.

    Memory grows with the number of distinct words. ValueError if size is too small for the characters of the text.
    """
    words = _count_words(_count_pieces(lines), lower_case)
    alphabet = sorted({char for word in words for char in word})
    # The library breaks ties between equally frequent pairs by number, and numbers ## characters in a hash order that
    # differs from run to run. Numbering the alphabet first makes the result reproducible.
    first = [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]
    if size <= len(first):
        raise ValueError(f"--vocab_size {size} is too small: {len(first)} entries are single characters of this text")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(_occurrences(words), trainer)
    numbered = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(numbered, key=numbered.__getitem__)))


def _count_pieces(lines: Iterable[str]) -> Counter:
    """How often each piece occurs. In a very long text the rarest pieces are dropped."""
    pieces: Counter = Counter()
    for line in lines:
        pieces.update(line.split(" "))
        if len(pieces) > _MAX_COUNTED_PIECES:
            pieces = _most_frequent(pieces)
    return pieces


def _most_frequent(pieces: Counter) -> Counter:
    """Those that occur 2 (or 4, 8 ...) times: at most half as many as are allowed, so that the next call is far."""
    least = 1
    while len(pieces) > _MAX_COUNTED_PIECES // 2:
        least *= 2
        pieces = Counter({piece: count for piece, count in pieces.items() if count >= least})
    return pieces


def _count_words(pieces: Counter, lower_case: bool) -> Counter:
    """How often each word occurs."""
    words: Counter = Counter()
    counted = iter(pieces.items())
    while some := list(islice(counted, _PIECES_AT_ONCE)):
        for (_, count), found in zip(some, split_words([piece for piece, _ in some], lower_case)):
            for word in found:
                words[word] += count
    return words


def _occurrences(words: Counter) -> Iterator[str]:
    """Each word as often as it occurs, in strings of limited length: the library takes text, not counts."""
    for word, count in words.items():
        for start in range(0, count, _REPEATED_AT_ONCE):
            yield " ".join([word] * min(_REPEATED_AT_ONCE, count - start))
