"""Which documents train, which are held out, and which are left out: decided over all parts at once."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.make_data.text import duplicates
from bert_pretrain.make_data.text.parts import TextPart, document_rows, document_signatures
from bert_pretrain.system.files import atomic_write, printable, remove_partials

# What becomes of a document.
TRAIN, HELD_OUT, LEFT_OUT, DIVIDED = 0, 1, 2, 3  # DIVIDED: its last sentences are held out, the others train
_DUPLICATES_FILE = "duplicates.tsv"
_AT_ONCE = 1 << 13  # signatures in memory
_NUM_SHOWN = 3  # duplicates, as examples
_MAX_SHARE = 10  # at most one of so many documents, and of so many bytes, is held out
_MLPERF_SEED, _MLPERF_SEED_STEP = 12_345, 13  # of MLPerf's choice of held-out articles


class Selection(NamedTuple):
    """What becomes of the documents."""

    fates: list[np.ndarray]  # of each part: [D] uint8
    counts: dict[str, int]  # documents and sentences found, documents left out by kind
    examples: list[str]  # some duplicates, for the user


def select_documents(parts: Sequence[TextPart]) -> Selection:
    """Decides over all documents; writes duplicates.tsv. It depends on the text and the settings alone."""
    found = [document_rows(part) for part in parts]
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
    blocks = chain.from_iterable(document_signatures(part, _AT_ONCE) for part in parts)
    files = duplicates.SignatureFiles(os.path.dirname(parts[0].path("documents")), blocks, len(hashes))
    repeated = duplicates.find_duplicate_documents(hashes, files)
    examples = _write_duplicates(repeated, parts, found, starts)
    fates, num_near_eval = _fates(repeated, hashes, num_bytes, files, parts[0])
    num_repeats = int((repeated.original >= 0).sum())
    counts["equal_duplicates"] = len(hashes) - len(np.unique(hashes))
    counts["near_duplicates"] = num_repeats - counts["equal_duplicates"]
    counts["left_out_documents"] = int((fates == LEFT_OUT).sum())
    counts["near_held_out_documents"] = num_near_eval
    return Selection(np.split(fates, starts[1:-1]), counts, examples)


def _fates(
    repeated: duplicates.DuplicateDocuments,
    hashes: np.ndarray,
    num_bytes: np.ndarray,
    files: duplicates.SignatureFiles,
    part: TextPart,
) -> tuple[np.ndarray, int]:
    """[D] uint8, and how many documents were left out only because they repeat a held-out one."""
    is_repeated = repeated.original >= 0
    fates = np.full(len(hashes), TRAIN, np.uint8)
    singles = np.flatnonzero(~is_repeated)
    drawn = hold_out_by_size(hashes[singles], num_bytes[singles], part.settings.num_held_out)
    fates[singles[drawn.whole]] = HELD_OUT
    if drawn.divided is not None:
        fates[singles[drawn.divided]] = DIVIDED
    if not part.settings.keep_duplicates:
        fates[is_repeated] = LEFT_OUT
        return fates, 0
    # What repeats a held-out document must not be trained on, whatever else is kept.
    near = duplicates.find_similar_to((fates == HELD_OUT) | (fates == DIVIDED), hashes, files)
    fates[near] = LEFT_OUT
    return fates, int(near.sum())


def _fates_by_mlperf(number: int, parts: Sequence[TextPart], num_documents: int) -> np.ndarray:
    (source,), settings = parts[number].sources, parts[number].settings
    fates = np.full(num_documents, TRAIN, np.uint8)
    fates[hold_out_by_mlperf(number, len(parts), settings.num_held_out, num_documents, source.path)] = HELD_OUT
    return fates


def _write_duplicates(
    repeated: duplicates.DuplicateDocuments, parts: Sequence[TextPart], found: Sequence[np.ndarray], starts: np.ndarray
) -> list[str]:
    """A line for each duplicate: file and number there, those of the document that stays, their similarity."""
    path = os.path.join(parts[0].output_dir, _DUPLICATES_FILE)
    remove_partials(path)
    examples: list[str] = []
    first_of = _first_documents(parts, found)

    def name(document: int) -> str:
        number = int(np.searchsorted(starts, document, side="right")) - 1
        file = parts[number].sources[found[number]["source"][document - starts[number]]].path
        return f"{printable_path(file)}:{document - first_of[file] + 1}"

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


def _first_documents(parts: Sequence[TextPart], found: Sequence[np.ndarray]) -> dict[str, int]:
    """The number of the first document of each file, over all parts; a file's pieces follow each other."""
    first: dict[str, int] = {}
    num_before = 0
    for part, rows in zip(parts, found):
        counts = np.bincount(rows["source"], minlength=len(part.sources)).tolist()
        for source, count in zip(part.sources, counts):
            first.setdefault(source.path, num_before)
            num_before += count
    return first


def printable_path(path: str) -> str:
    """A path in one line of UTF-8, whatever bytes it has."""
    return printable(path).translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})


class HeldOut(NamedTuple):
    """Numbers of the held-out documents, sorted, int64; or the one whose last sentences are held out."""

    whole: np.ndarray
    divided: Optional[int]


def hold_out_by_size(keys: np.ndarray, num_bytes: np.ndarray, wanted: int) -> HeldOut:
    """Draws over D documents with keys [D] uint64, hashes of their text, and sizes [D].

    At most `wanted`, a tenth of the documents and a tenth of all bytes. They are those of the smallest keys, so that
    each document has the same chance, whatever its file and the others; what would make it too much is passed over.
    Where even the smallest document is more than a tenth of the text, it is held out if it is less than two tenths,
    else the last sentences of the largest document are.
    """
    none = np.zeros(0, np.int64)
    if not wanted:
        return HeldOut(none, None)
    limit = max(1, min(wanted, len(keys) // _MAX_SHARE))
    total = int(num_bytes.sum()) // _MAX_SHARE
    chosen: list[int] = []
    used = 0
    for number in np.argsort(keys, kind="stable").tolist():
        if used + int(num_bytes[number]) <= total:
            chosen.append(number)
            used += int(num_bytes[number])
            if len(chosen) == limit:
                break
    if chosen:
        return HeldOut(np.array(sorted(chosen), np.int64), None)
    smallest = int(np.argmin(num_bytes))
    if int(num_bytes[smallest]) < 2 * total:
        return HeldOut(np.array([smallest], np.int64), None)
    return HeldOut(none, int(np.argmax(num_bytes)))


def end_of_training(num_sentences: int) -> int:
    """How many sentences of a divided document train; the others, a tenth and at least one, are held out."""
    return num_sentences - max(1, num_sentences // _MAX_SHARE)


def hold_out_by_mlperf(number: int, num_files: int, wanted: int, num_documents: int, path: str) -> np.ndarray:
    """Numbers of a file's held-out documents, by the rule of MLPerf's pick_eval_samples.py and split scripts.

    Each file holds out an equal share, drawn with a seed that depends on the file's number.
    """
    own = (number + 1) * wanted // num_files - number * wanted // num_files
    if own and own >= num_documents:
        raise ValueError(
            f"{path}: {num_documents} articles, and {own} of each file are to be held out; "
            f"lower --num_held_out {wanted}"
        )
    rng = random.Random(_MLPERF_SEED + _MLPERF_SEED_STEP * number)
    chosen: set[int] = set()
    while len(chosen) < own:
        chosen.add(int(rng.random() * num_documents))
    return np.array(sorted(chosen), np.int64)
