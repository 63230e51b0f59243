"""Parts of a text: their sources, and the documents found in them with what they are compared by."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.files import atomic_write
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.raw_text import duplicates, extraction, sentences
from bert_pretrain.make_data.raw_text.sources import Source
from bert_pretrain.worker_pool import Report

_MIN_BYTES, _MAX_BYTES, _NUM_PARTS = 1 << 20, 32 << 20, 64  # of raw text in a part; as many parts between these sizes


class Part(NamedTuple):
    """Sources whose documents are found by one task, and become one file for training and one for evaluation."""

    name: str
    sources: tuple[Source, ...]
    output_dir: str
    settings: TextConfig
    corpus: str  # SHA-256 of what all parts are made from

    @property
    def num_bytes(self) -> int:
        """Bytes of raw text."""
        return sum(source.num_bytes for source in self.sources)

    def path(self, folder: str, suffix: str = ".txt") -> str:
        """A file of this part in documents/, train/ or eval/."""
        return os.path.join(self.output_dir, folder, self.name + suffix)

    def origin(self) -> provenance.Origin:
        """What the files of this part are made from. Which documents train depends on all parts."""
        return provenance.Origin({**describe(self.settings), "corpus": self.corpus}, "", _described(self.sources))


class Found(NamedTuple):
    """The D documents of a part."""

    hashes: np.ndarray  # [D] uint64, of the words
    signatures: np.ndarray  # [D, NUM_BANDS, BAND_WIDTH] uint32
    folders: np.ndarray  # [D] int64, a number for the folder of a file that is one document, -1 for other documents
    num_words: np.ndarray  # [D] int64
    num_bytes: np.ndarray  # [D] int64, as written
    num_sentences: np.ndarray  # [D] int64


def describe(settings: TextConfig) -> dict[str, Any]:
    """The settings that documents depend on."""
    return {**vars(settings), "sentencex": metadata.version("sentencex")}


def plan(sources: Sequence[Source], output_dir: str, settings: TextConfig) -> list[Part]:
    """Divides the sources, in their order, into parts that do not depend on the number of processes.

    By MLPerf's rule each file is a part, named by its path below the common directory of all files.
    """
    sentences.check_splitter()
    content = json.dumps([describe(settings), _described(sources)], sort_keys=True)
    everything = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()
    if settings.held_out == "mlperf":
        groups = [(name, (source,)) for name, source in zip(_names(sources), sources)]
    else:
        groups = [(f"part-{number:05d}", group) for number, group in enumerate(_grouped(sources))]
    return [Part(name, tuple(group), output_dir, settings, everything) for name, group in groups]


def _grouped(sources: Sequence[Source]) -> list[list[Source]]:
    total = sum(source.num_bytes for source in sources)
    size = max(_MIN_BYTES, min(_MAX_BYTES, total // _NUM_PARTS))
    groups: list[list[Source]] = []
    filled = size
    for source in sources:
        if filled >= size:
            groups.append([])
            filled = 0
        groups[-1].append(source)
        filled += source.num_bytes
    return groups


def _names(sources: Sequence[Source]) -> list[str]:
    paths = [os.path.abspath(source.path) for source in sources]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, common).replace(os.sep, "-") for path in paths]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--input_file: two files would become {name}.txt; rename one")
    return names


def _described(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return provenance.describe_text(tuple(corpus.Span(source.path, 0, source.num_bytes) for source in sources))


def find_documents(part: Part, report: Report) -> None:
    """Writes a part's documents to documents/, complete or not at all, with what they are compared by."""
    account, found = extraction.Account(), _Growing(part.settings.held_out != "mlperf")
    output = part.path("documents")
    provenance.remove_partials(output)
    with atomic_write(output) as file:
        for source in part.sources:
            before = len(found.num_bytes)
            for document in extraction.extract(source, part.settings, account):
                corpus.write_documents(file, [document])
                report(found.add(document) / part.num_bytes)
            if len(found.num_bytes) == before + 1:
                found.folders[-1] = zlib.crc32(os.path.dirname(source.path).encode("utf-8", "surrogateescape"))
        with atomic_write(part.path("documents", ".npz"), "wb") as arrays:
            np.savez(arrays, **found.all()._asdict())
        counts = {"documents": len(found.num_bytes), "counts": dict(account.counts), "notes": account.notes}
        provenance.write(output, file, part.origin(), counts)


def are_found(part: Part) -> bool:
    """Whether documents/ holds the part. ValueError where it was made from something else."""
    return provenance.is_finished(part.path("documents"), part.origin()) and os.path.exists(
        part.path("documents", ".npz")
    )


def load(part: Part) -> Found:
    """What find_documents found."""
    with np.load(part.path("documents", ".npz")) as arrays:
        return Found(**arrays)


class _Growing:
    """What is known of the documents so far."""

    def __init__(self, is_signed: bool) -> None:
        self._signer = duplicates.Signer() if is_signed else None
        self._hashes: list[int] = []
        self._signatures: list[np.ndarray] = []
        self.folders: list[int] = []
        self._num_words: list[int] = []
        self.num_bytes: list[int] = []
        self._num_sentences: list[int] = []

    def add(self, document: list[str]) -> int:
        """Takes note of a document; returns its bytes."""
        if self._signer:
            digest, signature = self._signer.sign(document)
            self._hashes.append(digest)
            self._signatures.append(signature)
        self.folders.append(-1)
        self._num_words.append(sum(sentence.count(" ") + 1 for sentence in document))
        self.num_bytes.append(sum(len(sentence.encode()) + 1 for sentence in document) + 1)
        self._num_sentences.append(len(document))
        return self.num_bytes[-1]

    def all(self) -> Found:
        """All documents."""
        shape = (len(self._hashes), duplicates.NUM_BANDS, duplicates.BAND_WIDTH)
        return Found(
            np.array(self._hashes, np.uint64),
            np.concatenate(self._signatures or [np.zeros(0, np.uint32)]).reshape(shape),
            np.array(self.folders, np.int64),
            np.array(self._num_words, np.int64),
            np.array(self.num_bytes, np.int64),
            np.array(self._num_sentences, np.int64),
        )
