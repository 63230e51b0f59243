"""Which documents train, which are held out, and which are left out: decided over all parts at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data.raw_text import held_out, near_duplicates
from bert_pretrain.make_data.raw_text.document_table import read_signatures
from bert_pretrain.make_data.raw_text.parts import SIGNATURES, Part, rows_of
from bert_pretrain.system.files import atomic_write, remove_partials

TRAIN, HELD_OUT, LEFT_OUT, DIVIDED = 0, 1, 2, 3  # DIVIDED: its last sentences are held out, the others train
DUPLICATES = "duplicates.tsv"
_AT_ONCE = 1 << 13  # signatures in memory
_NUM_SHOWN = 3


class Selection(NamedTuple):
    """What becomes of the documents."""

    fates: list[np.ndarray]  # of each part: [D] uint8
    counts: dict[str, int]  # documents and sentences found, documents left out by kind
    examples: list[str]  # some duplicates, for the user


def select(parts: Sequence[Part]) -> Selection:
    """Decides over all documents; writes duplicates.tsv. It depends on the text and the settings alone."""
    found = [rows_of(part) for part in parts]
    starts = np.cumsum([0, *map(len, found)])
    if not starts[-1]:
        raise ValueError("--input_file: no document of two sentences was found; see what was left out above")
    counts = {
        "found_documents": int(starts[-1]),
        "found_sentences": sum(int(rows["num_sentences"].sum()) for rows in found),
    }
    if parts[0].settings.held_out == "mlperf":
        fates = [_fates_by_mlperf(number, parts, len(rows)) for number, rows in enumerate(found)]
        return Selection(fates, counts, [])
    hashes, num_bytes = (np.concatenate([rows[name] for rows in found]) for name in ("hash", "num_bytes"))
    files = _signature_files(parts, len(hashes))
    repeated = near_duplicates.find(hashes, files)
    examples = _write_duplicates(repeated, parts, found, starts)
    fates, num_near_eval = _fates(repeated, hashes, num_bytes, files, parts[0])
    num_repeats = int((repeated.original >= 0).sum())
    counts["equal_duplicates"] = len(hashes) - len(np.unique(hashes))
    counts["near_duplicates"] = num_repeats - counts["equal_duplicates"]
    counts["left_out_documents"] = int((fates == LEFT_OUT).sum())
    counts["near_held_out_documents"] = num_near_eval
    return Selection(np.split(fates, starts[1:-1]), counts, examples)


def _fates(
    repeated: near_duplicates.Duplicates,
    hashes: np.ndarray,
    num_bytes: np.ndarray,
    files: near_duplicates.SignatureFiles,
    part: Part,
) -> tuple[np.ndarray, int]:
    """[D] uint8, and how many documents were left out only because they repeat a held-out one."""
    is_repeated = repeated.original >= 0
    fates = np.full(len(hashes), TRAIN, np.uint8)
    singles = np.flatnonzero(~is_repeated)
    drawn = held_out.by_size(hashes[singles], num_bytes[singles], part.settings.num_held_out)
    fates[singles[drawn.whole]] = HELD_OUT
    if drawn.divided is not None:
        fates[singles[drawn.divided]] = DIVIDED
    if not part.settings.keep_duplicates:
        fates[is_repeated] = LEFT_OUT
        return fates, 0
    # What repeats a held-out document must not be trained on, whatever else is kept.
    near = near_duplicates.similar_to((fates == HELD_OUT) | (fates == DIVIDED), hashes, files)
    fates[near] = LEFT_OUT
    return fates, int(near.sum())


def _fates_by_mlperf(number: int, parts: Sequence[Part], num_documents: int) -> np.ndarray:
    (source,), settings = parts[number].sources, parts[number].settings
    fates = np.full(num_documents, TRAIN, np.uint8)
    fates[held_out.by_mlperf(number, len(parts), settings.num_held_out, num_documents, source.path)] = HELD_OUT
    return fates


def _signature_files(parts: Sequence[Part], num_documents: int) -> near_duplicates.SignatureFiles:
    paths = [part.path("documents", SIGNATURES) for part in parts]
    blocks = chain.from_iterable(read_signatures(path, _AT_ONCE) for path in paths)
    return near_duplicates.SignatureFiles(os.path.dirname(paths[0]), blocks, num_documents)


def _write_duplicates(
    repeated: near_duplicates.Duplicates, parts: Sequence[Part], found: Sequence[np.ndarray], starts: np.ndarray
) -> list[str]:
    """A line for each duplicate: file and number there, those of the document that stays, their similarity."""
    path = os.path.join(parts[0].output_dir, DUPLICATES)
    remove_partials(path)
    examples: list[str] = []
    first_of = _first_documents(parts, found)

    def name(document: int) -> str:
        number = int(np.searchsorted(starts, document, side="right")) - 1
        file = parts[number].sources[found[number]["source"][document - starts[number]]].path
        return f"{printable(file)}:{document - first_of[file] + 1}"

    def lines() -> Iterator[str]:
        yield "document\trepeats\tsimilarity\n"
        for document in np.flatnonzero(repeated.original >= 0).tolist():
            columns = name(document), name(int(repeated.original[document])), f"{repeated.similarity[document]:.2f}"
            if len(examples) < _NUM_SHOWN:
                examples.append("{} repeats {} (similarity {})".format(*columns))
            yield "\t".join(columns) + "\n"

    with atomic_write(path) as file:
        file.writelines(lines())
    return examples


def _first_documents(parts: Sequence[Part], found: Sequence[np.ndarray]) -> dict[str, int]:
    """The number of the first document of each file, over all parts; a file's pieces follow each other."""
    first: dict[str, int] = {}
    num_before = 0
    for part, rows in zip(parts, found):
        counts = np.bincount(rows["source"], minlength=len(part.sources)).tolist()
        for source, count in zip(part.sources, counts):
            first.setdefault(source.path, num_before)
            num_before += count
    return first


def printable(path: str) -> str:
    """A path in one line of UTF-8, whatever bytes it has."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text.translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})
