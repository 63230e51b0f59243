"""What is known of a part's documents: a row of numbers for each, and the signature that near duplicates are found by.

Both are files that grow document by document, so that memory does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from bert_pretrain.make_data.raw_text.duplicates import NUM_HASHES, Signer

ROW = np.dtype(
    [
        ("hash", "<u8"),  # of the words
        ("num_bytes", "<u8"),  # as written
        ("num_words", "<u4"),
        ("num_sentences", "<u4"),
        ("source", "<u4"),  # its number among the sources of the part
    ]
)
SIGNATURE_BYTES = 4 * NUM_HASHES


class TableWriter:
    """Appends documents to a table, and their signatures where duplicates are looked for."""

    def __init__(self, rows: IO[bytes], signatures: IO[bytes], is_signed: bool) -> None:
        self._rows, self._signatures = rows, signatures
        self._signer = Signer() if is_signed else None
        self.num_documents = 0

    def add(self, document: Sequence[str], source: int) -> int:
        """Appends a document, given as its sentences; returns its bytes."""
        digest = 0
        if self._signer:
            digest, signature = self._signer.sign(document)
            self._signatures.write(signature.tobytes())
        num_bytes = sum(len(sentence.encode()) + 1 for sentence in document) + 1
        num_words = sum(sentence.count(" ") + 1 for sentence in document)
        row = np.array((digest, num_bytes, num_words, len(document), source), ROW)
        self._rows.write(row.tobytes())
        self.num_documents += 1
        return num_bytes


def read_rows(path: str) -> np.ndarray:
    """The rows of a table, [D] of ROW, mapped from its file."""
    return np.memmap(path, ROW, "r") if os.path.getsize(path) else np.zeros(0, ROW)


def read_signatures(path: str, at_once: int) -> Iterator[np.ndarray]:
    """The signatures of a table in blocks, uint32 [at most at_once, NUM_HASHES]."""
    with open(path, "rb") as file:
        while len(block := np.fromfile(file, np.uint32, at_once * NUM_HASHES)):
            yield block.reshape(-1, NUM_HASHES)
