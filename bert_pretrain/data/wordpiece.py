"""WordPiece vocabularies, and text into token ids with the same result as Google's FullTokenizer.

Google's tokenizer cuts at spaces before anything else, so that what stands between two spaces (here: a piece) always
becomes the same tokens. Each different piece is tokenized once and looked up from then on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_pretrain.data.characters import split_words

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_WORD_CHARS = 200  # longer words are [UNK], as in google-research/bert
_MAX_CACHED_PIECES = 1_000_000  # about 300 MB
_MAX_COUNTED_PIECES = 10_000_000  # about 1.5 GB


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
            entries = tuple(dict.fromkeys(line.replace("\r", "").strip() for line in file))
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
    """Writes Google's vocab.txt form, complete or not at all. ValueError where that is impossible."""
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.partial")
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{entry}\n" for entry in vocabulary.entries)
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"--vocab_file: {path} cannot be written ({error.strerror})") from None


def train_vocabulary(lines: Iterable[str], size: int, lower_case: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` entries, the same for the same lines."""
    pieces = _count_pieces(lines)
    text = list(zip(split_words(list(pieces), lower_case), pieces.values()))
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


def _count_pieces(lines: Iterable[str]) -> Counter:
    """How often each piece occurs; of a very long text, without the rarest."""
    pieces: Counter = Counter()
    for line in lines:
        pieces.update(line.split(" "))
        if len(pieces) > _MAX_COUNTED_PIECES:
            pieces = Counter({piece: count for piece, count in pieces.items() if count > 1})
    return pieces


class LineTokenizer:
    """Lines of text into token ids."""

    def __init__(self, vocabulary: Vocabulary, lower_case: bool):
        self.vocabulary = vocabulary
        self._lower_case = lower_case
        numbered = {entry: number for number, entry in enumerate(vocabulary.entries)}
        self._wordpiece = Tokenizer(
            models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARS)
        )
        self._forget()

    def _forget(self) -> None:
        self._pieces, self._words = _Known(), _Known()

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all lines in a row, int32 [T], and the number of tokens of each line, int64 [len(lines)].

        A line has no line feed in it.
        """
        if len(self._pieces) > _MAX_CACHED_PIECES:
            self._forget()
        rows = self._pieces.rows(" \n ".join(lines).split(" "))
        new_pieces = self._pieces.without_ids()
        if new_pieces:
            self._pieces.learn(*self._encode_pieces(new_pieces))
        ids, num_ids = self._pieces.ids(rows)
        line_feeds = np.flatnonzero(rows == self._pieces.get("\n", -1))
        assert len(line_feeds) == max(len(lines) - 1, 0)
        line_ends = np.append(np.cumsum(num_ids)[line_feeds], len(ids))[: len(lines)]
        return ids, np.diff(line_ends, prepend=0)

    def _encode_pieces(self, pieces: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all pieces in a row, and how many belong to each."""
        split = split_words(pieces, self._lower_case)
        rows = self._words.rows(list(chain.from_iterable(split)))
        new_words = self._words.without_ids()
        if new_words:
            encoded = [code.ids for code in self._wordpiece.encode_batch_fast(new_words, add_special_tokens=False)]
            self._words.learn(np.fromiter(chain.from_iterable(encoded), np.int32), np.array([*map(len, encoded)]))
        ids, num_ids = self._words.ids(rows)
        ends = np.append(0, np.cumsum(num_ids))[np.cumsum([*map(len, split)])]
        return ids, np.diff(ends, prepend=0)


class _Known(dict):
    """Strings, numbered as they come, and the token ids of each."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.int32)
        self._starts = np.zeros(1, np.int64)

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number

    def rows(self, texts: list[str]) -> np.ndarray:
        """The number of each text; new ones are numbered, and must be learned next."""
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))

    def without_ids(self) -> list[str]:
        """The texts that were numbered but not learned."""
        return list(islice(self, len(self._starts) - 1, None))

    def learn(self, ids: np.ndarray, num_ids: np.ndarray) -> None:
        """Takes the ids of the texts without, in a row, and how many belong to each."""
        self._starts = np.append(self._starts, self._starts[-1] + np.cumsum(num_ids))
        self._ids = np.append(self._ids, ids)

    def ids(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of numbered texts in a row, and how many belong to each."""
        starts, num_ids = self._starts[rows], np.diff(self._starts)[rows]
        before = np.cumsum(num_ids) - num_ids
        return self._ids[np.repeat(starts - before, num_ids) + np.arange(num_ids.sum())], num_ids
