"""A part's documents -> its files in train/ and eval/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.raw_text.held_out import end_of_training
from bert_pretrain.make_data.raw_text.parts import Part, folders_of, rows_of
from bert_pretrain.make_data.raw_text.selection import DIVIDED, HELD_OUT, TRAIN
from bert_pretrain.make_data.task_progress import Done
from bert_pretrain.system.files import atomic_write
from bert_pretrain.system.worker_pool import ReportProgress

FOLDERS = {"eval": HELD_OUT, "train": TRAIN}
# Words. A sequence of 128 tokens holds about 100; shorter documents would leave most of it empty.
_SHORT_DOCUMENT, _JOINED_DOCUMENT = 100, 300


class Division(NamedTuple):
    """A part, and what becomes of its documents."""

    part: Part
    fates: np.ndarray  # [D] uint8


def divide(task: Division, report: ReportProgress) -> None:
    """Writes the files of a part, each complete or not at all."""
    origin = task.part.origin()
    for folder, fate in FOLDERS.items():
        output = task.part.path(folder)
        provenance.remove_partials(output)
        is_empty = not np.isin(task.fates, (fate, DIVIDED)).any()
        if is_empty or provenance.is_finished(output, origin):
            continue
        num_documents = num_sentences = 0
        with atomic_write(output) as file:
            for document in _joined(task, fate):
                corpus.write_documents(file, [document])
                num_documents += 1
                num_sentences += len(document)
            provenance.write(output, file, origin, {"documents": num_documents, "sentences": num_sentences})
        report(Done(0.5, num_documents))


def _joined(task: Division, fate: int) -> Iterator[list[str]]:
    """The documents of one fate. Files of a few sentences that follow each other in a folder become one document."""
    joined: list[str] = []
    num_words, of_folder = 0, -1
    for document, folder, words in _chosen(task, fate):
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


def _chosen(task: Division, fate: int) -> Iterator[tuple[list[str], int, int]]:
    """The documents of one fate, each with the number of its folder, or -1, and its words."""
    path = task.part.path("documents")
    if not os.path.getsize(path):
        return
    rows = rows_of(task.part)
    folders = folders_of(task.part, rows)
    documents = corpus.read_documents([corpus.whole(path)])
    for number, document in enumerate(documents):
        if task.fates[number] == DIVIDED:
            end = end_of_training(len(document))
            yield (document[:end] if fate == TRAIN else document[end:]), -1, 0
        elif task.fates[number] == fate:
            yield document, int(folders[number]), int(rows["num_words"][number])
