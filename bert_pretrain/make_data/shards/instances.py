"""What both modes make examples of: a tokenized text, pairs of its sentences, and their sequences before masking.

The token ids of a text lie in one array, and the sentences of A, as those of B, are adjacent in the text. So a pair is
two ranges of token ids. A single sequence is a pair whose B is empty.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.make_data.tokenization import LineTokenizer

NUM_SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
NUM_SPECIAL_TOKENS_OF_SINGLE = 2  # [CLS] A [SEP]
EXAMPLES_AT_ONCE = 256  # that are assembled and masked, so that they stay in the processor's cache
_CHARS_AT_ONCE = 4_000_000  # that are tokenized
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


def tokenize_documents(
    documents: Iterable[list[str]], tokenizer: LineTokenizer, account: Optional[Account] = None
) -> TokenizedText:
    """Tokenizes documents, each a list of sentences. Sentences and documents without a token are left out.

    account gets what was read, kept and left out.
    """
    ids = array("H" if _fits_uint16(tokenizer) else "i")
    sentence_starts, document_starts = array("q", [0]), array("q", [0])
    # Arrays that grow in place: joining parts would need twice the memory.
    for part in _parts(documents, tokenizer, account):
        ids.frombytes(part.ids.tobytes())
        sentence_starts.frombytes((part.sentence_starts[1:] + sentence_starts[-1]).tobytes())
        document_starts.frombytes((part.document_starts[1:] + document_starts[-1]).tobytes())
    return TokenizedText(
        np.frombuffer(ids, np.uint16 if ids.typecode == "H" else np.int32),
        np.frombuffer(sentence_starts, np.int64),
        np.frombuffer(document_starts, np.int64),
    )


def tokenize_documents_in_blocks(
    documents: Iterable[list[str]], tokenizer: LineTokenizer, max_tokens: int, account: Optional[Account] = None
) -> Iterator[TokenizedText]:
    """The same in blocks of whole documents with at least max_tokens tokens; a smaller rest joins the last block."""
    ready: list[TokenizedText] = []
    filling: list[TokenizedText] = []
    for part in _parts(documents, tokenizer, account):
        filling.append(part)
        if sum(len(filled.ids) for filled in filling) >= max_tokens:
            if ready:
                yield _join_texts(ready)
            ready, filling = filling, []
    if ready or filling:
        yield _join_texts(ready + filling)


def _parts(
    documents: Iterable[list[str]], tokenizer: LineTokenizer, account: Optional[Account]
) -> Iterator[TokenizedText]:
    """The tokenized text of some whole documents at a time."""
    waiting: list[list[str]] = []
    num_chars = 0
    for document in documents:
        waiting.append(document)
        num_chars += sum(map(len, document))
        if num_chars >= _CHARS_AT_ONCE:
            yield _tokenize_at_once(waiting, tokenizer, account)
            waiting, num_chars = [], 0
    if waiting:
        yield _tokenize_at_once(waiting, tokenizer, account)


def _tokenize_at_once(
    documents: list[list[str]], tokenizer: LineTokenizer, account: Optional[Account]
) -> TokenizedText:
    lines = [line for document in documents for line in document]
    ids, lengths = tokenizer.encode(lines)
    if account is not None:
        _count_lines(documents, lines, lengths, account)
    owners = np.repeat(np.arange(len(documents)), [len(document) for document in documents])[lengths > 0]
    lengths = lengths[lengths > 0]
    return TokenizedText(
        ids.astype(np.uint16) if _fits_uint16(tokenizer) else ids,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.append(np.flatnonzero(np.diff(owners, prepend=-1)), len(owners)),
    )


def _count_lines(documents: list[list[str]], lines: list[str], lengths: np.ndarray, account: Account) -> None:
    """Adds the documents and their lines, of which each became tokens [lines] or is left out."""
    num_characters = sum(map(count_characters, lines))
    num_left_out = sum(count_characters(lines[number]) for number in np.flatnonzero(lengths == 0).tolist())
    ends = np.cumsum([len(document) for document in documents])
    num_tokens = np.diff(np.concatenate([[0], np.cumsum(lengths)])[ends], prepend=0)
    num_without = int((num_tokens == 0).sum())
    account.add_read(len(documents), num_characters)
    account.kept.update(documents=len(documents) - num_without, characters=num_characters - num_left_out)
    account.leave_out("lines without a token", num_left_out, num_without)


def _fits_uint16(tokenizer: LineTokenizer) -> bool:
    return len(tokenizer.vocabulary.entries) <= _MAX_UINT16 + 1


def _join_texts(parts: list[TokenizedText]) -> TokenizedText:
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


class Pairs(NamedTuple):
    """E sentence pairs as ranges of TokenizedText.ids, and whether B comes from another document.

    An empty B: a single sequence.
    """

    a_start: np.ndarray  # [E] int64
    a_end: np.ndarray  # [E] int64
    b_start: np.ndarray  # [E] int64
    b_end: np.ndarray  # [E] int64
    is_random_next: np.ndarray  # [E] bool


class Instances(NamedTuple):
    """E sequences [CLS] A [SEP] B [SEP], or [CLS] A [SEP], before masking."""

    ids: np.ndarray  # [E, S] uint16 or int32 as in TokenizedText, 0 after the last token
    num_first: np.ndarray  # [E] int64, tokens of segment 0: [CLS] A [SEP]; num_tokens of a single sequence
    num_tokens: np.ndarray  # [E] int64
    is_random_next: np.ndarray  # [E] bool

    def choosable(self) -> np.ndarray:
        """[E, S] bool: tokens other than [CLS], [SEP] and padding."""
        choosable = np.arange(self.ids.shape[1]) < self.num_tokens[:, None] - 1
        choosable[:, 0] = False
        choosable[np.arange(len(choosable)), self.num_first - 1] = False
        return choosable


def assemble(text: TokenizedText, pairs: Pairs, max_seq_length: int, cls_id: int, sep_id: int) -> Instances:
    """[CLS] A [SEP] B [SEP] and padding for each pair, [CLS] A [SEP] and padding where B is empty."""
    num_a, num_b = pairs.a_end - pairs.a_start, pairs.b_end - pairs.b_start
    num_tokens = num_a + num_b + np.where(num_b > 0, NUM_SPECIAL_TOKENS, NUM_SPECIAL_TOKENS_OF_SINGLE)
    column = np.arange(max_seq_length)
    # A begins at column 1, B after A and [SEP].
    a_rows = _windows(text.ids, pairs.a_start - 1, max_seq_length)
    b_rows = _windows(text.ids, pairs.b_start - num_a - 2, max_seq_length)
    ids = np.where(column > num_a[:, None] + 1, b_rows, a_rows)  # [E, S]
    ids *= column < num_tokens[:, None]  # padding is 0
    row = np.arange(len(ids))
    ids[:, 0] = cls_id
    ids[row, num_a + 1] = sep_id
    ids[row, num_tokens - 1] = sep_id
    return Instances(ids, num_a + 2, num_tokens, pairs.is_random_next)


def _windows(ids: np.ndarray, start: np.ndarray, size: int) -> np.ndarray:
    """ids[start : start + size] for each start [E]; outside of the array its first or last element."""
    is_inside = (start >= 0) & (start <= len(ids) - size)
    rows = np.empty((len(start), size), ids.dtype)
    if is_inside.any():
        windows = np.lib.stride_tricks.as_strided(ids, (len(ids) - size + 1, size), 2 * ids.strides, writeable=False)
        rows[is_inside] = windows[start[is_inside]]  # copies whole rows, which is faster than taking elements
    rows[~is_inside] = ids.take(start[~is_inside, None] + np.arange(size), mode="clip")
    return rows
