"""Which documents train, which are held out, and which are left out: decided over all parts at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bert_pretrain.files import atomic_write
from bert_pretrain.make_data.raw_text import duplicates, held_out
from bert_pretrain.make_data.raw_text.parts import Found, Part, load

TRAIN, HELD_OUT, LEFT_OUT = 0, 1, 2
_SIGNATURES = "signatures.npy"
DUPLICATES = "duplicates.tsv"


class Selection(NamedTuple):
    """What becomes of the documents."""

    fates: list[np.ndarray]  # of each part: [D] uint8
    counts: dict[str, int]  # documents, sentences and bytes, by what becomes of them; duplicates


def select(parts: Sequence[Part]) -> Selection:
    """Decides over all documents; writes duplicates.tsv. It depends on the text and the settings alone."""
    found = [load(part) for part in parts]
    starts = np.cumsum([0, *(len(one.num_bytes) for one in found)])
    settings, output_dir = parts[0].settings, parts[0].output_dir
    if not starts[-1]:
        raise ValueError("--input_file: no document of two sentences was found; see what was left out above")
    if settings.held_out == "mlperf":
        fates = [
            _fates_by_mlperf(number, len(parts), part, one) for number, (part, one) in enumerate(zip(parts, found))
        ]
        return Selection(fates, _counts(fates, found))
    hashes, num_bytes = (np.concatenate([getattr(one, name) for one in found]) for name in ("hashes", "num_bytes"))
    repeated = duplicates.find(hashes, _signatures(parts, found, starts))
    _write_duplicates(os.path.join(output_dir, DUPLICATES), repeated, parts, starts)
    fates = _fates(repeated, hashes, num_bytes, settings.num_held_out, settings.keep_duplicates)
    divided = np.split(fates, starts[1:-1])
    equal, near = (
        int(((repeated.original >= 0) & (is_equal == (repeated.similarity == 1))).sum()) for is_equal in (1, 0)
    )
    return Selection(divided, {**_counts(divided, found), "equal_duplicates": equal, "near_duplicates": near})


def _fates(
    repeated: duplicates.Duplicates, hashes: np.ndarray, num_bytes: np.ndarray, wanted: int, keeps_duplicates: bool
) -> np.ndarray:
    is_repeated = repeated.original >= 0
    fates = np.full(len(hashes), TRAIN, np.uint8)
    singles = np.flatnonzero(~is_repeated)
    fates[singles[held_out.by_size(hashes[singles], num_bytes[singles], wanted)]] = HELD_OUT
    repeats = np.flatnonzero(is_repeated)
    # What repeats a held-out document must not be trained on, whatever else is kept.
    is_left_out = (fates[repeated.original[repeats]] == HELD_OUT) | (not keeps_duplicates)
    fates[repeats[is_left_out]] = LEFT_OUT
    return fates


def _fates_by_mlperf(number: int, num_parts: int, part: Part, found: Found) -> np.ndarray:
    fates = np.full(len(found.num_bytes), TRAIN, np.uint8)
    (source,) = part.sources
    fates[held_out.by_mlperf(number, num_parts, part.settings.num_held_out, len(fates), source.path)] = HELD_OUT
    return fates


def _counts(fates: Sequence[np.ndarray], found: Sequence[Found]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, fate in (("train", TRAIN), ("eval", HELD_OUT), ("left_out", LEFT_OUT)):
        chosen = [one == fate for one in fates]
        counts[f"{name}_documents"] = sum(int(one.sum()) for one in chosen)
        for unit in ("num_sentences", "num_bytes"):
            counts[f"{name}_{unit[4:]}"] = sum(int(getattr(f, unit)[one].sum()) for f, one in zip(found, chosen))
    return counts


def _signatures(parts: Sequence[Part], found: Sequence[Found], starts: np.ndarray) -> np.ndarray:
    """The signatures of all documents, [NUM_BANDS, D, BAND_WIDTH], as a file of which a band at a time is in memory."""
    path = os.path.join(parts[0].output_dir, "documents", _SIGNATURES)
    shape = (duplicates.NUM_BANDS, int(starts[-1]), duplicates.BAND_WIDTH)
    signatures = np.lib.format.open_memmap(path, "w+", np.uint32, shape)
    for one, start in zip(found, starts):
        signatures[:, start : start + len(one.signatures)] = one.signatures.transpose(1, 0, 2)
    return signatures


def _write_duplicates(path: str, repeated: duplicates.Duplicates, parts: Sequence[Part], starts: np.ndarray) -> None:
    """A line for each duplicate: its part and number there, those of the document that stays, their similarity."""

    def name(number: int) -> str:
        part = int(np.searchsorted(starts, number, side="right")) - 1
        return f"{parts[part].name}:{number - starts[part]}"

    with atomic_write(path) as file:
        file.write("document\trepeats\tsimilarity\n")
        for number in np.flatnonzero(repeated.original >= 0):
            file.write(f"{name(number)}\t{name(repeated.original[number])}\t{repeated.similarity[number]:.2f}\n")
