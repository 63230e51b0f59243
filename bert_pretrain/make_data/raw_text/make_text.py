"""The --make_text step: raw text -> documents/ -> train/ and eval/, each file complete or not at all.

The documents of each part are found in parallel, what becomes of them is decided over all parts, and the files are
written in parallel. Nothing depends on the number of processes, and an interrupted step goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain import files
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.raw_text import sources
from bert_pretrain.make_data.raw_text.parts import Part, are_found, find_documents, load, plan
from bert_pretrain.make_data.raw_text.selection import HELD_OUT, TRAIN, select
from bert_pretrain.make_data.task_progress import run_tasks
from bert_pretrain.worker_pool import Report, Workers

REPORT = "text_report.json"
# Words. A sequence of 128 tokens holds about 100; shorter documents would leave most of it empty.
_SHORT_DOCUMENT, _JOINED_DOCUMENT = 100, 300
_MAX_NOTES = 10  # printed; text_report.json has all


def make_text(patterns: str, output_dir: str, settings: TextConfig, workers: Workers) -> list[str]:
    """Makes train/ and eval/ in output_dir; returns lines for the user. ValueError for bad input."""
    found, left_out = sources.find_sources(patterns)
    if left_out:
        print(f"files of other kinds left out: {sources.describe(left_out)}", file=sys.stderr)
    parts = plan(found, output_dir, settings)
    report = os.path.join(output_dir, REPORT)
    if provenance.is_finished(report, _origin(parts)):
        return [f"{output_dir}: the text is there"]
    try:
        todo = [part for part in parts if not are_found(part)]
        run_tasks(workers, find_documents, todo, [part.num_bytes for part in todo], len(parts))
        account = _account(parts)
        selection = select(parts)
        tasks = [_Writing(part, fates) for part, fates in zip(parts, selection.fates)]
        run_tasks(workers, _write_documents, tasks, [part.num_bytes for part in parts], len(parts))
        content = {**selection.counts, "files": len(found), "left_out": account.counts, "notes": account.notes}
        _write_report(report, content, _origin(parts))
        shutil.rmtree(os.path.join(output_dir, "documents"))
    except OSError as error:
        raise ValueError(f"{output_dir}: cannot be written ({error.strerror})") from None
    return list(_summary(output_dir, selection.counts, account))


def _write_report(path: str, content: dict[str, Any], origin: provenance.Origin) -> None:
    with files.atomic_write(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        provenance.write(path, file, origin, {})


def _origin(parts: Sequence[Part]) -> provenance.Origin:
    """What the whole text is made from; each part's origin names the sources."""
    return provenance.Origin({**parts[0].origin().settings}, "", [])


class _Account(NamedTuple):
    counts: dict[str, int]
    notes: list[str]


def _account(parts: Sequence[Part]) -> _Account:
    """What was left out in all parts; prints the first notes."""
    counts: Counter = Counter()
    notes: list[str] = []
    for part in parts:
        described = provenance.read(part.path("documents"))
        assert described is not None, part.name
        counts.update(described["counts"])
        notes += described["notes"]
    for note in notes[:_MAX_NOTES]:
        print(note, file=sys.stderr)
    if notes[_MAX_NOTES:]:
        print(f"and {len(notes) - _MAX_NOTES} more, in {REPORT}", file=sys.stderr)
    return _Account(dict(sorted(counts.items())), notes)


class _Writing(NamedTuple):
    """A part, and what becomes of its documents."""

    part: Part
    fates: np.ndarray


def _write_documents(task: _Writing, report: Report) -> None:
    for folder, fate in (("eval", HELD_OUT), ("train", TRAIN)):
        output = task.part.path(folder)
        provenance.remove_partials(output)
        if not (task.fates == fate).any() or provenance.is_finished(output, task.part.origin()):
            continue
        with files.atomic_write(output) as file:
            corpus.write_documents(file, _chosen(task, fate))
            provenance.write(output, file, task.part.origin(), {"documents": int((task.fates == fate).sum())})


def _chosen(task: _Writing, fate: int) -> Iterator[list[str]]:
    """The documents of one fate. Files of a few sentences that follow each other in a folder become one document."""
    found = load(task.part)
    documents = corpus.read_documents([corpus.whole(task.part.path("documents"))])
    joined, num_words, of_folder = [], 0, -1
    for document, one, folder, words in zip(documents, task.fates, found.folders.tolist(), found.num_words.tolist()):
        if one != fate:
            continue
        is_short = folder >= 0 and words < _SHORT_DOCUMENT
        if joined and (not is_short or folder != of_folder or num_words >= _JOINED_DOCUMENT):
            yield joined
            joined, num_words = [], 0
        if is_short:
            joined, num_words, of_folder = joined + document, num_words + words, folder
        else:
            yield document
    if joined:
        yield joined


def _summary(output_dir: str, counts: dict[str, int], account: _Account) -> Iterator[str]:
    yield (
        f"{output_dir}: {counts['train_documents']} documents for training ({_amount(counts, 'train')}), "
        f"{counts['eval_documents']} held out ({_amount(counts, 'eval')})"
    )
    if "equal_duplicates" in counts:
        yield (
            f"duplicates: {counts['equal_duplicates']} equal, {counts['near_duplicates']} nearly equal; "
            f"{counts['left_out_documents']} left out, listed in duplicates.tsv"
        )
    if account.counts:
        yield "found besides: " + ", ".join(f"{number} {kind}" for kind, number in account.counts.items())


def _amount(counts: dict[str, int], part: str) -> str:
    return f"{counts[f'{part}_sentences']} sentences, {counts[f'{part}_bytes'] / 1e6:.1f} MB"
