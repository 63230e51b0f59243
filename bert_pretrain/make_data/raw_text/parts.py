"""Parts of a text: their sources, and the documents found in them with what they are compared by."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.raw_text import extraction, sentences
from bert_pretrain.make_data.raw_text.document_table import TableWriter, read_rows
from bert_pretrain.make_data.raw_text.pieces import pieces
from bert_pretrain.make_data.raw_text.sources import Source
from bert_pretrain.make_data.task_progress import Done
from bert_pretrain.system.files import atomic_write
from bert_pretrain.system.worker_pool import ReportProgress

TABLE, SIGNATURES = ".table", ".signatures"  # beside the text in documents/
_BYTES_BETWEEN_REPORTS = 1 << 20
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
        return provenance.Origin(describe(self.settings), "", [{"sha256": self.corpus}, *_described(self.sources)])


def describe(settings: TextConfig) -> dict[str, Any]:
    """The settings that documents depend on."""
    return {**vars(settings), "sentencex": metadata.version("sentencex")}


def plan(sources: Sequence[Source], output_dir: str, settings: TextConfig) -> list[Part]:
    """Divides the sources, in their order, into parts that do not depend on the number of processes.

    Large files are cut into pieces where they can be. By MLPerf's rule each file is a part, named by its path below the
    common directory of all files.
    """
    sentences.check_splitter()
    content = json.dumps([describe(settings), _described(sources)], sort_keys=True)
    everything = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()
    if settings.held_out == "mlperf":
        groups = [(name, (source,)) for name, source in zip(_names(sources), sources)]
    else:
        groups = [(f"part-{number:05d}", group) for number, group in enumerate(_grouped(sources, settings))]
    return [Part(name, tuple(group), output_dir, settings, everything) for name, group in groups]


def _grouped(sources: Sequence[Source], settings: TextConfig) -> list[list[Source]]:
    total = sum(source.num_bytes for source in sources)
    size = max(_MIN_BYTES, min(_MAX_BYTES, total // _NUM_PARTS))
    groups: list[list[Source]] = []
    filled = size
    for source in chain.from_iterable(pieces(source, settings, size) for source in sources):
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
    return provenance.describe_text(
        tuple(corpus.Span(source.path, source.start, source.end or source.num_bytes) for source in sources)
    )


def find_documents(part: Part, report: ReportProgress) -> None:
    """Writes a part's documents to documents/, complete or not at all, with what they are compared by."""
    account = extraction.Account()
    output, table = part.path("documents"), part.path("documents", TABLE)
    for path in (output, table, part.path("documents", SIGNATURES)):
        provenance.remove_partials(path)
    with atomic_write(output) as file, atomic_write(table, "wb") as rows, atomic_write(
        part.path("documents", SIGNATURES), "wb"
    ) as signatures:
        writer = TableWriter(rows, signatures, part.settings.held_out != "mlperf")
        unreported = num_reported = 0
        for number, source in enumerate(part.sources):
            for document in extraction.extract(source, part.settings, account):
                corpus.write_documents(file, [document])
                unreported += writer.add(document, number)
                if unreported > _BYTES_BETWEEN_REPORTS:
                    report(Done(unreported / part.num_bytes, writer.num_documents - num_reported))
                    unreported, num_reported = 0, writer.num_documents
        report(Done(0, writer.num_documents - num_reported))
        # The text gets its name last: where it is, the table is complete, too.
        counts = {"documents": writer.num_documents, "counts": dict(account.counts), "notes": account.notes}
        provenance.write(output, file, part.origin(), counts)


def are_found(part: Part) -> bool:
    """Whether documents/ holds the part. ValueError where it was made from something else."""
    return provenance.is_finished(part.path("documents"), part.origin())


def rows_of(part: Part) -> np.ndarray:
    """What is known of the part's documents, [D] of document_table.ROW."""
    return read_rows(part.path("documents", TABLE))


def folders_of(part: Part, rows: np.ndarray) -> np.ndarray:
    """For each document a number for the folder of its file, -1 where the file holds other documents, too; int64."""
    names = [os.path.dirname(source.path) for source in part.sources]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folders = np.array([numbers[name] for name in names], np.int64)
    is_single = np.bincount(rows["source"], minlength=len(names)) == 1
    is_single &= np.array([not source.is_piece for source in part.sources])
    return np.where(is_single[rows["source"]], folders[rows["source"]], -1)
