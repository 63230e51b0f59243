"""WordPiece vocabularies, and text into token ids with the same result as Google's FullTokenizer.

Google's tokenizer cuts at spaces before anything else, so that what stands between two spaces (here: a piece) always
becomes the same tokens. Each different piece is tokenized once and looked up from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_pretrain.data.characters import split_words

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_WORD_CHARS = 200  # longer words are [UNK], as in google-research/bert
_MAX_CACHED_PIECES = 1_000_000  # about 300 MB


class Vocabulary(NamedTuple):
    """The entries of a vocab.txt in order; an entry's number is its token id."""

    entries: tuple[str, ...]

    def id(self, entry: str) -> int:
        """The token id of an entry that is known to be there."""
        return self.entries.index(entry)


def load_vocabulary(path: str) -> Vocabulary:
    """Reads a vocab.txt, one entry a line; like Google, a repeated entry does not count a second time."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            entries = tuple(dict.fromkeys(line.strip() for line in file))
    except OSError as error:
        raise ValueError(f"--vocab_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"--vocab_file: {path} is not UTF-8: {error.reason} at byte {error.start}") from None
    missing = [entry for entry in SPECIAL_TOKENS[1:] if entry not in entries]
    if missing:
        raise ValueError(
            f"--vocab_file: {path} has no {', '.join(missing)} among its {len(entries)} entries; "
            f"a BERT vocabulary holds {', '.join(SPECIAL_TOKENS)}, each on its own line"
        )
    return Vocabulary(entries)


def write_vocabulary(path: str, vocabulary: Vocabulary) -> None:
    """Writes Google's vocab.txt form."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{entry}\n" for entry in vocabulary.entries)


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines, whatever their order."""
    words: dict[str, int] = {}
    for line in lines:
        for piece in line.split(" "):
            words[piece] = words.get(piece, 0) + 1
    text = [(split_words(piece, lower_case), count) for piece, count in words.items()]
    alphabet = sorted({char for piece, _ in text for word in piece for char in word})
    # Numbering the alphabet first decides ties between equally frequent pairs; the library's own numbers for the
    # ## characters follow a hash order that differs from run to run.
    first = [*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)]
    if size <= len(first):
        raise ValueError(f"--vocab_size {size} is too small: {len(first)} entries are single characters of this text")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator((" ".join(piece * count) for piece, count in text), trainer)
    numbered = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(numbered, key=numbered.__getitem__)))


class LineTokenizer:
    """Lines of text into token ids."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool):
        self.vocabulary = vocabulary
        self._lower_case = lower_case
        numbered = {entry: number for number, entry in enumerate(vocabulary.entries)}
        self._wordpiece = Tokenizer(
            models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARS)
        )
        self._wordpiece.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}  # piece -> its row in the two arrays below
        self._piece_ids = np.empty(0, np.int32)
        self._piece_starts = np.zeros(1, np.int64)

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all lines in a row, int32 [T], and the number of tokens of each line, int64 [len(lines)]."""
        split = [line.split(" ") for line in lines]
        pieces = list(chain.from_iterable(split))
        if len(self._numbers) > _MAX_CACHED_PIECES:
            self._forget()
        self._learn([piece for piece in dict.fromkeys(pieces) if piece not in self._numbers])
        rows = np.fromiter(map(self._numbers.__getitem__, pieces), np.int64, len(pieces))
        starts, sizes = self._piece_starts[rows], np.diff(self._piece_starts)[rows]
        ends = np.cumsum(sizes)
        within = np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)
        ids = self._piece_ids[np.repeat(starts, sizes) + within]
        last_pieces = np.cumsum([len(line) for line in split], dtype=np.int64)
        line_ends = np.concatenate([[0], ends])[last_pieces]
        return ids, np.diff(line_ends, prepend=0)

    def _learn(self, pieces: list[str]) -> None:
        if not pieces:
            return
        texts = [" ".join(split_words(piece, self._lower_case)) for piece in pieces]
        encoded = [encoding.ids for encoding in self._wordpiece.encode_batch_fast(texts, add_special_tokens=False)]
        self._numbers.update(zip(pieces, range(len(self._numbers), len(self._numbers) + len(pieces))))
        new_ids = np.fromiter(chain.from_iterable(encoded), np.int32)
        new_ends = self._piece_starts[-1] + np.cumsum([len(ids) for ids in encoded])
        self._piece_ids = np.concatenate([self._piece_ids, new_ids])
        self._piece_starts = np.concatenate([self._piece_starts, new_ends])
