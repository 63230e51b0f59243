"""A tokenized text in memory: all token ids in a row, and where sentences and documents begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.data.wordpiece import LineTokenizer

_LINES_AT_ONCE = 20_000


class TokenizedText(NamedTuple):
    """T token ids, N sentences, D documents, none of them empty; starts end with the total."""

    ids: np.ndarray  # [T] int32
    sentence_starts: np.ndarray  # [N+1] int64, into ids
    document_starts: np.ndarray  # [D+1] int64, into sentence_starts

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.document_starts) - 1


def tokenize(documents: Iterable[list[str]], tokenizer: LineTokenizer) -> TokenizedText:
    """Documents, each a list of sentences, as token ids; sentences and documents without a token are left out."""
    ids, lengths, owners = [], [], []
    for numbers, lines in _blocks(documents):
        block_ids, block_lengths = tokenizer.encode(lines)
        ids.append(block_ids)
        lengths.append(block_lengths)
        owners.append(np.asarray(numbers, np.int64))
    all_lengths = np.concatenate([np.zeros(0, np.int64), *lengths])
    kept = all_lengths > 0
    owner = np.concatenate([np.zeros(0, np.int64), *owners])[kept]
    sentence_starts = np.concatenate([[0], np.cumsum(all_lengths[kept])])
    first_sentences = np.flatnonzero(np.diff(owner, prepend=-1))
    document_starts = np.append(first_sentences, len(owner))
    return TokenizedText(np.concatenate([np.zeros(0, np.int32), *ids]), sentence_starts, document_starts)


def _blocks(documents: Iterable[list[str]]) -> Iterator[tuple[list[int], list[str]]]:
    numbers: list[int] = []
    lines: list[str] = []
    for number, document in enumerate(documents):
        numbers.extend([number] * len(document))
        lines.extend(document)
        if len(lines) >= _LINES_AT_ONCE:
            yield numbers, lines
            numbers, lines = [], []
    if lines:
        yield numbers, lines
