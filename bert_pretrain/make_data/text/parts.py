"""Parts of a text, which are worked on in parallel: their sources, and the documents found in them.

Large files are cut between documents. Parts depend on the files and the settings alone, not on the number of processes.
Beside a part's documents are a row of numbers for each document and the signature that near duplicates are found by:
files that grow document by document, so that memory does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from itertools import chain
from typing import IO, Any, Callable, NamedTuple

import numpy as np

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.task_progress import Progress, ReportProgress
from bert_pretrain.make_data.text import extraction, prose
from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.make_data.text.duplicates import NUM_HASHES, Signer
from bert_pretrain.make_data.text.extraction import find_encoding_and_content
from bert_pretrain.make_data.text.reading import NotTextError, TextSource, decompressed, is_cut_at_line_feeds
from bert_pretrain.system.files import atomic_write

DOCUMENT_SUFFIXES = (".txt", ".txt.json", ".table", ".signatures")  # of a part's files in documents/
_TEXT, _, _TABLE, _SIGNATURES = DOCUMENT_SUFFIXES
_ROW = np.dtype(
    [
        ("hash", "<u8"),  # of the words
        ("num_bytes", "<u8"),  # as written
        ("num_characters", "<u8"),  # that are no white space
        ("num_words", "<u4"),
        ("num_sentences", "<u4"),
        ("source", "<u4"),  # its number among the sources of the part
    ]
)
_BYTES_BETWEEN_REPORTS = 1 << 20
_MIN_BYTES, _MAX_BYTES, _NUM_PARTS = 1 << 20, 32 << 20, 64  # of raw text in a part; as many parts between these sizes
_MAX_READ = 1 << 20  # bytes of a line in memory, where a file is cut

# By the kind of a file's content: whether a document begins at a line, given how the line before and this one begin.
_IsBeginning = Callable[[bytes, bytes], bool]
_BEGINNINGS: dict[str, _IsBeginning] = {
    "json": lambda before, line: True,
    "marked": lambda before, line: line.startswith(b"<doc "),
    "blank_line": lambda before, line: not before.strip(),
}


class TextPart(NamedTuple):
    """Sources whose documents are found by one task, and become one file for training and one for evaluation."""

    name: str
    sources: tuple[TextSource, ...]
    output_dir: str
    settings: TextConfig
    sha256: str  # of what all parts are made from

    @property
    def num_bytes(self) -> int:
        """Bytes of raw text."""
        return sum(source.num_bytes for source in self.sources)

    def path(self, folder: str, suffix: str = _TEXT) -> str:
        """A file of this part in documents/, train/ or eval/."""
        return os.path.join(self.output_dir, folder, self.name + suffix)

    def origin(self) -> provenance.Origin:
        """What the files of this part are made from. Which documents train depends on all parts."""
        return provenance.Origin(
            _describe_settings(self.settings), "", [{"sha256": self.sha256}, *_describe_sources(self.sources)]
        )


def _describe_settings(settings: TextConfig) -> dict[str, Any]:
    """The settings that documents depend on."""
    return {**vars(settings), "sentencex": metadata.version("sentencex")}


def _describe_sources(sources: Sequence[TextSource]) -> list[dict[str, Any]]:
    return provenance.describe_text(
        tuple(corpus.Span(source.path, source.start, source.end or source.num_bytes) for source in sources)
    )


def plan_parts(sources: Sequence[TextSource], output_dir: str, settings: TextConfig) -> list[TextPart]:
    """Divides the sources, in their order, into parts that do not depend on the number of processes.

    Large files are cut into pieces where they can be. By MLPerf's rule each file is a part, named by its path below the
    common directory of all files.
    """
    prose.check_splitter()
    content = json.dumps([_describe_settings(settings), _describe_sources(sources)], sort_keys=True)
    sha256 = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()
    if settings.held_out == "mlperf":
        groups = [(name, (source,)) for name, source in zip(_names_of_files(sources), sources)]
    else:
        groups = [(f"part-{number:05d}", group) for number, group in enumerate(_grouped(sources, settings))]
    return [TextPart(name, tuple(group), output_dir, settings, sha256) for name, group in groups]


def _grouped(sources: Sequence[TextSource], settings: TextConfig) -> list[list[TextSource]]:
    total = sum(source.num_bytes for source in sources)
    size = max(_MIN_BYTES, min(_MAX_BYTES, total // _NUM_PARTS))
    groups: list[list[TextSource]] = []
    filled = size
    for source in chain.from_iterable(cut_into_pieces(source, settings, size) for source in sources):
        if filled >= size:
            groups.append([])
            filled = 0
        groups[-1].append(source)
        filled += source.num_bytes
    return groups


def _names_of_files(sources: Sequence[TextSource]) -> list[str]:
    paths = [os.path.abspath(source.path) for source in sources]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, common).replace(os.sep, "-") for path in paths]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--input_file: two files would become {name}.txt; rename one")
    return names


def cut_into_pieces(source: TextSource, settings: TextConfig, size: int) -> list[TextSource]:
    """A file as pieces of at least `size` bytes, or as it is where it is small or cannot be cut.

    Compressed files are read from their beginning, one that is a document is one, and MLPerf's rule counts files.
    """
    if source.num_bytes < 2 * size or source.compression or settings.held_out == "mlperf":
        return [source]
    if source.form == "parquet":
        return _groups_of_rows(source, size)
    try:
        encoding, content = find_encoding_and_content(source, settings)
    except NotTextError:
        return [source]
    if content.kind not in _BEGINNINGS or not is_cut_at_line_feeds(encoding):
        return [source]
    with decompressed(source) as file:
        cuts = [0, *_cuts(file, _BEGINNINGS[content.kind], source.num_bytes, size), source.num_bytes]
    return [source._replace(num_bytes=end - start, start=start, end=end) for start, end in zip(cuts, cuts[1:])]


def _groups_of_rows(source: TextSource, size: int) -> list[TextSource]:
    """The row groups of a Parquet file; several of them where they are small."""
    found: list[TextSource] = []
    sizes = extraction.parquet_row_groups(source)
    start = filled = 0
    for number, num_bytes in enumerate(sizes, start=1):
        filled += num_bytes
        if filled >= size or number == len(sizes):
            share = source.num_bytes * filled // max(1, sum(sizes))
            found.append(source._replace(num_bytes=share, start=start, end=number))
            start, filled = number, 0
    return found or [source]


def _cuts(file: IO[bytes], is_beginning: _IsBeginning, num_bytes: int, size: int) -> Iterator[int]:
    """The first beginning of a document that is `size` bytes after the one before, and so on."""
    position = size
    while position < num_bytes - size // 2:  # the last piece is not much smaller than the others
        position = _next_beginning(file, is_beginning, position)
        if position < num_bytes:
            yield position
        position += size


def _next_beginning(file: IO[bytes], is_beginning: _IsBeginning, position: int) -> int:
    """The first beginning of a document after the line at this byte; the end of the file where there is none."""
    file.seek(position)
    before, _ = b"-", _rest_of_line(file)
    while line := file.readline(_MAX_READ):
        start = file.tell() - len(line)
        if is_beginning(before, line):
            return start
        before = line
        if not line.endswith(b"\n"):
            before = b"-"  # not known to be blank
            _rest_of_line(file)
    return file.tell()


def _rest_of_line(file: IO[bytes]) -> None:
    while (part := file.readline(_MAX_READ)) and not part.endswith(b"\n"):
        pass


def has_documents(part: TextPart) -> bool:
    """Whether documents/ holds the part. ValueError where it was made from something else."""
    output = part.path("documents")
    # Earlier versions wrote no account and rows of another form.
    return provenance.is_finished(output, part.origin()) and "account" in (provenance.read_provenance(output) or {})


def find_documents(part: TextPart, report: ReportProgress) -> None:
    """Writes a part's documents to documents/, complete or not at all, with what they are compared by."""
    account = Account()
    output, table_path, signatures_path = (part.path("documents", suffix) for suffix in (_TEXT, _TABLE, _SIGNATURES))
    for path in (output, table_path, signatures_path):
        provenance.remove_partial_output(path)
    with contextlib.ExitStack() as stack:
        # The text gets its name last: where it is, the table is complete, too.
        file = stack.enter_context(atomic_write(output))
        table = stack.enter_context(atomic_write(table_path, "wb"))
        signatures = stack.enter_context(atomic_write(signatures_path, "wb"))
        writer = _TableWriter(table, signatures, part.settings.held_out != "mlperf")
        unreported = num_reported = 0
        for number, source in enumerate(part.sources):
            for document in extraction.extract_documents(source, part.settings, account):
                corpus.write_documents(file, [document])
                unreported += writer.add(document, number)
                if unreported > _BYTES_BETWEEN_REPORTS:
                    report(Progress(unreported / part.num_bytes, writer.num_documents - num_reported))
                    unreported, num_reported = 0, writer.num_documents
        report(Progress(0, writer.num_documents - num_reported))
        wrong = account.check()
        assert wrong is None, f"{part.name}: {wrong}"
        facts = {"documents": writer.num_documents, "account": account.as_json()}
        provenance.write_provenance(output, file, part.origin(), facts)


class _TableWriter:
    """Appends documents to a table, and their signatures where duplicates are looked for."""

    def __init__(self, table: IO[bytes], signatures: IO[bytes], is_signed: bool) -> None:
        self._table, self._signatures = table, signatures
        self._signer = Signer() if is_signed else None
        self.num_documents = 0

    def add(self, document: Sequence[str], source: int) -> int:
        """Appends a document, given as its sentences; returns its bytes."""
        digest = 0
        if self._signer:
            digest, signature = self._signer.sign(document)
            self._signatures.write(signature.tobytes())
        num_bytes = sum(len(sentence.encode()) + 1 for sentence in document) + 1
        num_characters = sum(map(count_characters, document))
        num_words = sum(sentence.count(" ") + 1 for sentence in document)
        row = np.array((digest, num_bytes, num_characters, num_words, len(document), source), _ROW)
        self._table.write(row.tobytes())
        self.num_documents += 1
        return num_bytes


def document_rows(part: TextPart) -> np.ndarray:
    """The _ROW of each of a part's documents, [D], mapped from a file."""
    path = part.path("documents", _TABLE)
    return np.memmap(path, _ROW, "r") if os.path.getsize(path) else np.zeros(0, _ROW)


def document_signatures(part: TextPart, at_once: int) -> Iterator[np.ndarray]:
    """The signatures of a part's documents in blocks, uint32 [at most at_once, NUM_HASHES]."""
    with open(part.path("documents", _SIGNATURES), "rb") as file:
        while len(block := np.fromfile(file, np.uint32, at_once * NUM_HASHES)):
            yield block.reshape(-1, NUM_HASHES)


def document_folders(part: TextPart, rows: np.ndarray) -> np.ndarray:
    """For each document a number for the folder of its file, -1 where the file holds other documents, too; int64."""
    names = [os.path.dirname(source.path) for source in part.sources]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    folders = np.array([numbers[name] for name in names], np.int64)
    is_single = np.bincount(rows["source"], minlength=len(names)) == 1
    is_single &= np.array([not source.is_piece for source in part.sources])
    return np.where(is_single[rows["source"]], folders[rows["source"]], -1)
