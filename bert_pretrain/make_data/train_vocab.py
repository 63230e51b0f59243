"""Training a WordPiece vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary
from bert_pretrain.make_data.tokenization import split_words

_MAX_COUNTED_PIECES = 10_000_000  # about 1.5 GB


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines.

    ValueError if size is too small for the characters of the text.
    """
    pieces = _count_pieces(lines)
    text = list(zip(split_words(list(pieces), lower_case), pieces.values()))
    alphabet = sorted({char for piece, _ in text for word in piece for char in word})
    # The library breaks ties between equally frequent pairs by number, and numbers ## characters in a hash order that
    # differs from run to run. Numbering the alphabet first makes the result reproducible.
    first = [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]
    if size <= len(first):
        raise ValueError(f"--vocab_size {size} is too small: {len(first)} entries are single characters of this text")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator((" ".join(piece * count) for piece, count in text), trainer)
    numbered = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(numbered, key=numbered.__getitem__)))


def _count_pieces(lines: Iterable[str]) -> Counter:
    """How often each piece occurs. In a very long text the rarest pieces are dropped."""
    pieces: Counter = Counter()
    for line in lines:
        pieces.update(line.split(" "))
        if len(pieces) > _MAX_COUNTED_PIECES:
            pieces = Counter({piece: count for piece, count in pieces.items() if count > 1})
    return pieces
