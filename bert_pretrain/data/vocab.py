"""vocab.txt: the vocabulary, its special tokens, reading and writing it."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from bert_pretrain.system.files import atomic_write, open_regular

NUM_FREQUENT_TOKENS = 100  # those that a model predicts first, and that say little about what it has learned
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_MAX_BYTES = 64 << 20  # the largest vocabularies have five


class Vocabulary(NamedTuple):
    """The lines of a vocab.txt in order. Every line has an id, its number; a repeated entry has that of its last line.

    This is what load_vocab in google-research/bert's tokenization.py makes of a file that ends with an entry.
    """

    entries: tuple[str, ...]

    def numbered(self) -> dict[str, int]:
        """Entry -> token id; entries in the order of their first lines."""
        return {entry: number for number, entry in enumerate(self.entries)}

    def id(self, entry: str) -> int:
        """The token id of an entry, which must exist."""
        return self.numbered()[entry]


def load_vocabulary(path: str) -> Vocabulary:
    """Reads a vocab.txt, one entry a line. A byte order mark, carriage returns and blank lines at the end are no part.

    ValueError for a file that cannot be read or lacks a special token.
    """
    try:
        with open_regular(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = io.StringIO(content.decode("utf-8-sig"), newline="\n")
    except OSError as error:
        raise ValueError(f"--vocab_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"--vocab_file: {path} is not UTF-8: {error.reason} at byte {error.start}") from None
    if len(content) > _MAX_BYTES:
        raise ValueError(f"--vocab_file: {path} is no vocabulary: it has more than {_MAX_BYTES >> 20} MiB")
    lines = [line.replace("\r", "").strip() for line in text]
    while lines and not lines[-1]:  # they would make the vocabulary larger than the model; one in between has an id
        lines.pop()
    entries = tuple(lines)
    missing = [entry for entry in SPECIAL_TOKENS[1:] if entry not in entries]
    if missing:
        raise ValueError(
            f"--vocab_file: {path} has no {', '.join(missing)} among its {len(entries)} entries; "
            f"a BERT vocabulary holds {', '.join(SPECIAL_TOKENS)}, each on its own line"
        )
    return Vocabulary(entries)


def write_vocabulary(path: str, vocabulary: Vocabulary) -> None:
    """Writes a vocab.txt, complete or not at all. ValueError if it cannot be written."""
    try:
        with atomic_write(path) as file:
            file.writelines(f"{entry}\n" for entry in vocabulary.entries)
    except OSError as error:
        raise ValueError(f"--vocab_file: {path} cannot be written ({error.strerror})") from None


def rare_token_ids(counts: np.ndarray) -> np.ndarray:
    """counts [V] of tokens -> the ids that are not among the NUM_FREQUENT_TOKENS most frequent.

    Where fewer than ten times as many kinds of tokens occur, a tenth of these kinds is frequent.
    """
    num_frequent = min(NUM_FREQUENT_TOKENS, np.count_nonzero(counts) // 10)
    return np.argsort(-counts, kind="stable")[num_frequent:]
