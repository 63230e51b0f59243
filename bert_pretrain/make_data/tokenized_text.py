"""A tokenized text in memory: all token ids in one array, and where sentences and documents begin."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data.tokenization import LineTokenizer

_CHARS_AT_ONCE = 4_000_000
_MAX_UINT16 = 65_535


class TokenizedText(NamedTuple):
    """T token ids, N sentences, D documents, none of them empty. The last entry of each `starts` is the total."""

    ids: np.ndarray  # [T] uint16, or int32 for more than 65,536 entries
    sentence_starts: np.ndarray  # [N+1] int64, into ids
    document_starts: np.ndarray  # [D+1] int64, into sentence_starts

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.document_starts) - 1


def tokenize(documents: Iterable[list[str]], tokenizer: LineTokenizer) -> TokenizedText:
    """Tokenizes documents, each a list of sentences. Sentences and documents without a token are left out."""
    ids = array("H" if _fits_uint16(tokenizer) else "i")
    sentence_starts, document_starts = array("q", [0]), array("q", [0])
    for part in _parts(documents, tokenizer):  # arrays that grow in place: joining parts would need twice the memory
        ids.frombytes(part.ids.tobytes())
        sentence_starts.frombytes((part.sentence_starts[1:] + sentence_starts[-1]).tobytes())
        document_starts.frombytes((part.document_starts[1:] + document_starts[-1]).tobytes())
    return TokenizedText(
        np.frombuffer(ids, np.uint16 if ids.typecode == "H" else np.int32),
        np.frombuffer(sentence_starts, np.int64),
        np.frombuffer(document_starts, np.int64),
    )


def tokenize_in_blocks(
    documents: Iterable[list[str]], tokenizer: LineTokenizer, max_tokens: int
) -> Iterator[TokenizedText]:
    """The same in blocks of whole documents with at least max_tokens tokens; a smaller rest joins the last block."""
    ready: list[TokenizedText] = []
    filling: list[TokenizedText] = []
    for part in _parts(documents, tokenizer):
        filling.append(part)
        if sum(len(filled.ids) for filled in filling) >= max_tokens:
            if ready:
                yield _join(ready)
            ready, filling = filling, []
    if ready or filling:
        yield _join(ready + filling)


def _parts(documents: Iterable[list[str]], tokenizer: LineTokenizer) -> Iterator[TokenizedText]:
    """The tokenized text of some whole documents at a time."""
    waiting: list[list[str]] = []
    num_chars = 0
    for document in documents:
        waiting.append(document)
        num_chars += sum(map(len, document))
        if num_chars >= _CHARS_AT_ONCE:
            yield _tokenize(waiting, tokenizer)
            waiting, num_chars = [], 0
    if waiting:
        yield _tokenize(waiting, tokenizer)


def _tokenize(documents: list[list[str]], tokenizer: LineTokenizer) -> TokenizedText:
    ids, lengths = tokenizer.encode([line for document in documents for line in document])
    owners = np.repeat(np.arange(len(documents)), [len(document) for document in documents])[lengths > 0]
    lengths = lengths[lengths > 0]
    return TokenizedText(
        ids.astype(np.uint16) if _fits_uint16(tokenizer) else ids,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.append(np.flatnonzero(np.diff(owners, prepend=-1)), len(owners)),
    )


def _fits_uint16(tokenizer: LineTokenizer) -> bool:
    return len(tokenizer.vocabulary.entries) <= _MAX_UINT16 + 1


def _join(parts: list[TokenizedText]) -> TokenizedText:
    if len(parts) == 1:
        return parts[0]
    return TokenizedText(
        np.concatenate([np.zeros(0, np.uint16), *(part.ids for part in parts)]),
        _join_starts([part.sentence_starts for part in parts]),
        _join_starts([part.document_starts for part in parts]),
    )


def _join_starts(parts: list[np.ndarray]) -> np.ndarray:
    totals = np.cumsum([0, *(part[-1] for part in parts)])
    moved = [part[:-1] + before for part, before in zip(parts, totals)]
    return np.concatenate([*moved, totals[-1:]])
