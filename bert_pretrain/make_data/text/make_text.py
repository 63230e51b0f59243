"""The --make_text step: raw text -> documents/ -> train/ and eval/, each file complete or not at all.

The documents of each part are found in parallel, what becomes of them is decided over all parts, and the files are
written in parallel. Nothing depends on the number of processes, and an interrupted step goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.task_progress import Progress, ReportProgress, run_tasks
from bert_pretrain.make_data.text import extraction, prose, reading
from bert_pretrain.make_data.text.account import Account
from bert_pretrain.make_data.text.duplicates import SIGNATURE_FILES
from bert_pretrain.make_data.text.parts import (
    DOCUMENT_SUFFIXES,
    TextPart,
    document_folders,
    document_rows,
    find_documents,
    has_documents,
    plan_parts,
)
from bert_pretrain.make_data.text.selection import (
    DIVIDED,
    HELD_OUT,
    LEFT_OUT,
    TRAIN,
    end_of_training,
    printable_path,
    select_documents,
)
from bert_pretrain.system.files import atomic_write, open_regular
from bert_pretrain.system.locks import DATA, locked_directory
from bert_pretrain.system.worker_pool import Workers

_REPORT_FILE = "text_report.json"
_MAX_NOTES = 10  # printed; text_report.json has all
_FOLDERS = {"eval": HELD_OUT, "train": TRAIN}
# Words. A sequence of 128 tokens holds about 100; shorter documents would leave most of it empty.
_SHORT_DOCUMENT, _JOINED_DOCUMENT = 100, 300


class SelectedPart(NamedTuple):
    """A part, and what becomes of its documents."""

    part: TextPart
    fates: np.ndarray  # [D] uint8


def make_text(patterns: str, output_dir: str, settings: TextConfig, workers: Workers) -> list[str]:
    """Makes train/ and eval/ in output_dir; returns lines for the user. ValueError for bad input."""
    found, left_out = reading.find_sources(patterns)
    if left_out:
        print(f"files of other kinds left out: {reading.describe_suffixes(left_out)}", file=sys.stderr)
    parts = plan_parts(found, output_dir, settings)
    is_told = settings.language == "auto"
    rules = "auto" if is_told else prose.sentence_rules(settings.language)
    if not is_told and not settings.language.lower().startswith(rules):
        print(
            f"--language={settings.language}: sentencex has no rules for it, those of {rules} are used", file=sys.stderr
        )
    try:
        if _is_finished(output_dir, parts):
            _remove_documents(output_dir, parts)
            return [f"{output_dir}: the text is there"]
        about = {"files": len(found), "sentence_rules": rules, "other_files_left_out": dict(left_out)}
        with locked_directory(output_dir, DATA):
            content, examples, account = _make(output_dir, parts, about, workers)
    except OSError as error:
        raise ValueError(f"{output_dir}: cannot be written ({error.strerror})") from None
    return list(_summary(output_dir, content, examples, settings, account))


def _make(
    output_dir: str, parts: Sequence[TextPart], about: dict[str, Any], workers: Workers
) -> tuple[dict[str, Any], list[str], Account]:
    """Writes everything; returns the report's content with `about` in it, some duplicates as examples, the account."""
    todo = [part for part in parts if not has_documents(part)]
    run_tasks(workers, find_documents, todo, [part.num_bytes for part in todo], len(parts), unit="documents found")
    account = _sum_accounts(parts)
    if not account.kept["documents"]:
        raise ValueError(f"--input_file: no document of two sentences was found; {account.describe()}")
    print("finding duplicates and drawing held-out documents", file=sys.stderr)
    selection = select_documents(parts)
    tasks = [SelectedPart(part, fates) for part, fates in zip(parts, selection.fates)]
    run_tasks(workers, write_part, tasks, [part.num_bytes for part in parts], len(parts), unit="documents written")
    for part, fates in zip(parts, selection.fates):
        num_characters = document_rows(part)["num_characters"][fates == LEFT_OUT]
        account.leave_out("duplicates", int(num_characters.sum()), len(num_characters))
        account.keep_less(len(num_characters), int(num_characters.sum()))
    wrong = account.check()
    assert wrong is None, wrong
    content = {**selection.counts, **_sum_outputs(parts), **about, **_describe_account(account)}
    _write_report(output_dir, content, parts)
    _remove_documents(output_dir, parts)
    return content, selection.examples, account


def _origin(parts: Sequence[TextPart]) -> provenance.Origin:
    """What the whole text is made from."""
    origin = parts[0].origin()
    return provenance.Origin(origin.settings, "", origin.text[:1])


def _is_finished(output_dir: str, parts: Sequence[TextPart]) -> bool:
    """Whether the report and all files that it names are there."""
    path = os.path.join(output_dir, _REPORT_FILE)
    if not provenance.is_finished(path, _origin(parts)):
        return False
    with open_regular(path) as file:
        outputs = json.load(file)["outputs"]
    paths = {os.path.join(output_dir, name): num_bytes for name, num_bytes in outputs.items()}
    return all(os.path.exists(path) and os.path.getsize(path) == num_bytes for path, num_bytes in paths.items())


def _sum_accounts(parts: Sequence[TextPart]) -> Account:
    """What became of the text of all parts; prints the first notes. ValueError where all records of a file are bad."""
    account = Account()
    for part in parts:
        described = provenance.read_provenance(part.path("documents"))
        assert described is not None, part.name
        account.add_json(described["account"])
    for note in account.notes[:_MAX_NOTES]:
        print(printable_path(note), file=sys.stderr)
    if account.notes[_MAX_NOTES:]:
        print(f"and {len(account.notes) - _MAX_NOTES} more, in {_REPORT_FILE}", file=sys.stderr)
    for path, records in account.records.items():
        extraction.require_good_record(path, records, parts[0].settings.text_column)
    return account


def _describe_account(account: Account) -> dict[str, Any]:
    """The account in the form of the report."""
    return {
        **account.amounts(),
        "found_besides": dict(sorted((kind, number) for kind, number in account.counts.items() if number)),
        "notes": account.notes,
    }


def _sum_outputs(parts: Sequence[TextPart]) -> dict[str, Any]:
    """Documents, sentences and bytes of the files in train/ and eval/, and each file's bytes."""
    counts = {f"{folder}_{unit}": 0 for folder in _FOLDERS for unit in ("documents", "sentences", "bytes")}
    outputs: dict[str, int] = {}
    for folder in _FOLDERS:
        for part in parts:
            described = provenance.read_provenance(part.path(folder)) if os.path.exists(part.path(folder)) else None
            if described is not None:
                outputs[f"{folder}/{part.name}.txt"] = described["bytes"]
                for unit in ("documents", "sentences", "bytes"):
                    counts[f"{folder}_{unit}"] += described[unit]
    return {**counts, "outputs": outputs}


def _write_report(output_dir: str, content: dict[str, Any], parts: Sequence[TextPart]) -> None:
    path = os.path.join(output_dir, _REPORT_FILE)
    provenance.remove_partial_output(path)
    with atomic_write(path) as file:
        json.dump(content, file, indent=1)
        provenance.write_provenance(path, file, _origin(parts), {})


def _remove_documents(output_dir: str, parts: Sequence[TextPart]) -> None:
    """Removes what was needed between the steps, and nothing else that may be in the folder."""
    folder = os.path.join(output_dir, "documents")
    paths = [os.path.join(folder, name) for name in SIGNATURE_FILES]
    for part in parts:
        paths += [part.path("documents", suffix) for suffix in DOCUMENT_SUFFIXES]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def write_part(task: SelectedPart, report: ReportProgress) -> None:
    """Writes the files of a part, each complete or not at all."""
    origin = task.part.origin()
    for folder, fate in _FOLDERS.items():
        output = task.part.path(folder)
        provenance.remove_partial_output(output)
        is_empty = not np.isin(task.fates, (fate, DIVIDED)).any()
        if is_empty or provenance.is_finished(output, origin):
            continue
        num_documents = num_sentences = 0
        with atomic_write(output) as file:
            for document in _joined(task, fate):
                corpus.write_documents(file, [document])
                num_documents += 1
                num_sentences += len(document)
            provenance.write_provenance(output, file, origin, {"documents": num_documents, "sentences": num_sentences})
        report(Progress(0.5, num_documents))


def _joined(task: SelectedPart, fate: int) -> Iterator[list[str]]:
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


def _chosen(task: SelectedPart, fate: int) -> Iterator[tuple[list[str], int, int]]:
    """The documents of one fate, each with the number of its folder, or -1, and its words."""
    path = task.part.path("documents")
    if not os.path.getsize(path):
        return
    rows = document_rows(task.part)
    folders = document_folders(task.part, rows)
    documents = corpus.read_documents([corpus.whole_file(path)])
    for number, document in enumerate(documents):
        if task.fates[number] == DIVIDED:
            end = end_of_training(len(document))
            yield (document[:end] if fate == TRAIN else document[end:]), -1, 0
        elif task.fates[number] == fate:
            yield document, int(folders[number]), int(rows["num_words"][number])


def _summary(
    output_dir: str, content: dict[str, Any], examples: Sequence[str], settings: TextConfig, account: Account
) -> Iterator[str]:
    """The numbers of text_report.json, `content`, in a few lines for the user; `examples` are some duplicates."""
    yield (
        f"{output_dir}: {content['found_documents']:,} documents of {content['found_sentences']:,} sentences found in "
        f"{content['files']:,} files"
    )
    yield f"train: {_amount(content, 'train')}"
    total = content["train_bytes"] + content["eval_bytes"]
    share = content["eval_bytes"] / total if total else 0
    yield f"eval, held out: {_amount(content, 'eval')}, {share:.1%} of the text"
    if settings.held_out == "by_size" and 0 < content["eval_documents"] < settings.num_held_out:
        yield f"--num_held_out={settings.num_held_out} lowered: at most a tenth of documents and of text is held out"
    if content.get("equal_duplicates", 0) + content.get("near_duplicates", 0):
        yield (
            f"duplicates: {content['equal_duplicates']:,} equal, {content['near_duplicates']:,} nearly equal, "
            f"listed in duplicates.tsv; {content['left_out_documents']:,} documents left out, such as"
        )
        yield from (f"  {line}" for line in examples)
    yield account.describe()
    if content["found_besides"]:
        yield "found besides: " + ", ".join(f"{number:,} {kind}" for kind, number in content["found_besides"].items())
    if settings.language == "auto":
        yield "languages are told by the letters of each file; --language=CODE names one for all"


def _amount(content: dict[str, Any], part: str) -> str:
    documents, sentences, num_bytes = (content[f"{part}_{unit}"] for unit in ("documents", "sentences", "bytes"))
    return f"{documents:,} documents, {sentences:,} sentences, {num_bytes / 1e6:,.1f} MB"
