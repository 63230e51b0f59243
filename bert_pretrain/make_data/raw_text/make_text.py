"""The --make_text step: raw text -> documents/ -> train/ and eval/, each file complete or not at all.

The documents of each part are found in parallel, what becomes of them is decided over all parts, and the files are
written in parallel. Nothing depends on the number of processes, and an interrupted step goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import provenance
from bert_pretrain.make_data.raw_text import sentences, sources
from bert_pretrain.make_data.raw_text.division import FOLDERS, Division, divide
from bert_pretrain.make_data.raw_text.near_duplicates import FILES
from bert_pretrain.make_data.raw_text.parts import SIGNATURES, TABLE, Part, are_found, find_documents, plan
from bert_pretrain.make_data.raw_text.selection import printable, select
from bert_pretrain.make_data.raw_text.summary import summary
from bert_pretrain.make_data.task_progress import run_tasks
from bert_pretrain.system import files
from bert_pretrain.system.locks import DATA, locked_directory
from bert_pretrain.system.worker_pool import Workers

REPORT = "text_report.json"
_MAX_NOTES = 10  # printed; text_report.json has all


def make_text(patterns: str, output_dir: str, settings: TextConfig, workers: Workers) -> list[str]:
    """Makes train/ and eval/ in output_dir; returns lines for the user. ValueError for bad input."""
    found, left_out = sources.find_sources(patterns)
    if left_out:
        print(f"files of other kinds left out: {sources.describe(left_out)}", file=sys.stderr)
    parts = plan(found, output_dir, settings)
    rules = sentences.rules_of(settings.language)
    if not settings.language.lower().startswith(rules):
        print(
            f"--language={settings.language}: sentencex has no rules for it, those of {rules} are used", file=sys.stderr
        )
    try:
        if _is_finished(output_dir, parts):
            _remove_documents(output_dir, parts)
            return [f"{output_dir}: the text is there"]
        about = {"files": len(found), "sentence_rules": rules, "other_files_left_out": dict(left_out)}
        with locked_directory(output_dir, DATA):
            content, examples = _make(output_dir, parts, about, workers)
    except OSError as error:
        raise ValueError(f"{output_dir}: cannot be written ({error.strerror})") from None
    return list(summary(output_dir, content, examples, settings))


def _make(
    output_dir: str, parts: Sequence[Part], about: dict[str, Any], workers: Workers
) -> tuple[dict[str, Any], list[str]]:
    """Writes everything; returns the report's content with `about` in it, and some duplicates as examples."""
    todo = [part for part in parts if not are_found(part)]
    run_tasks(workers, find_documents, todo, [part.num_bytes for part in todo], len(parts), unit="documents found")
    content = {**about, **_account(parts)}
    print("finding duplicates and drawing held-out documents", file=sys.stderr)
    selection = select(parts)
    tasks = [Division(part, fates) for part, fates in zip(parts, selection.fates)]
    run_tasks(workers, divide, tasks, [part.num_bytes for part in parts], len(parts), unit="documents written")
    content = {**selection.counts, **_written(parts), **content}
    _write_report(output_dir, content, parts)
    _remove_documents(output_dir, parts)
    return content, selection.examples


def _origin(parts: Sequence[Part]) -> provenance.Origin:
    """What the whole text is made from."""
    origin = parts[0].origin()
    return provenance.Origin(origin.settings, "", origin.text[:1])


def _is_finished(output_dir: str, parts: Sequence[Part]) -> bool:
    """Whether the report and all files that it names are there."""
    path = os.path.join(output_dir, REPORT)
    if not provenance.is_finished(path, _origin(parts)):
        return False
    with open(path, encoding="utf-8") as file:
        outputs = json.load(file)["outputs"]
    paths = {os.path.join(output_dir, name): num_bytes for name, num_bytes in outputs.items()}
    return all(os.path.exists(path) and os.path.getsize(path) == num_bytes for path, num_bytes in paths.items())


def _account(parts: Sequence[Part]) -> dict[str, Any]:
    """What was left out or changed in all parts; prints the first notes."""
    counts: Counter = Counter()
    notes: list[str] = []
    for part in parts:
        described = provenance.read(part.path("documents"))
        assert described is not None, part.name
        counts.update(described["counts"])
        notes += described["notes"]
    for note in notes[:_MAX_NOTES]:
        print(printable(note), file=sys.stderr)
    if notes[_MAX_NOTES:]:
        print(f"and {len(notes) - _MAX_NOTES} more, in {REPORT}", file=sys.stderr)
    return {"left_out": dict(sorted(counts.items())), "notes": notes}


def _written(parts: Sequence[Part]) -> dict[str, Any]:
    """Documents, sentences and bytes of the files in train/ and eval/, and each file's bytes."""
    counts = {f"{folder}_{unit}": 0 for folder in FOLDERS for unit in ("documents", "sentences", "bytes")}
    outputs: dict[str, int] = {}
    for folder in FOLDERS:
        for part in parts:
            described = provenance.read(part.path(folder)) if os.path.exists(part.path(folder)) else None
            if described is not None:
                outputs[f"{folder}/{part.name}.txt"] = described["bytes"]
                for unit in ("documents", "sentences", "bytes"):
                    counts[f"{folder}_{unit}"] += described[unit]
    return {**counts, "outputs": outputs}


def _write_report(output_dir: str, content: dict[str, Any], parts: Sequence[Part]) -> None:
    path = os.path.join(output_dir, REPORT)
    provenance.remove_partials(path)
    with files.atomic_write(path) as file:
        json.dump(content, file, indent=1)
        provenance.write(path, file, _origin(parts), {})


def _remove_documents(output_dir: str, parts: Sequence[Part]) -> None:
    """Removes what was needed between the steps, and nothing else that may be in the folder."""
    folder = os.path.join(output_dir, "documents")
    paths = [os.path.join(folder, name) for name in FILES]
    for part in parts:
        paths += [part.path("documents", suffix) for suffix in (".txt", ".txt.json", TABLE, SIGNATURES)]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
