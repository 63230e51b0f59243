"""The files of --make_text: sources -> train/ and eval/, one sentence a line, a blank line between documents."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import random
from collections import Counter
from importlib import metadata
from typing import NamedTuple

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.files import atomic_write
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.make_data.raw_text.extraction import extract
from bert_pretrain.make_data.raw_text.sources import find_files
from bert_pretrain.worker_pool import Report

_SEED, _SEED_STEP = 12_345, 13  # of MLPerf's choice of held-out articles


class TextTask(NamedTuple):
    """A raw file, and the two files that its documents are written to."""

    source: str
    train_output: str
    eval_output: str
    number: int  # index of the file among num_files; the held-out documents depend on it
    num_files: int
    num_held_out: int  # documents, of all files together
    settings: TextConfig


def plan(patterns: str, output_dir: str, num_held_out: int, settings: TextConfig) -> list[TextTask]:
    """A task for each raw file. Outputs are named by the file's path below the common directory of all files."""
    if importlib.util.find_spec("sentencex") is None:
        raise ValueError("--make_text needs sentencex, which is not installed; run: bash init_tf.sh --data")
    sources = find_files(patterns)
    common = os.path.commonpath([os.path.dirname(os.path.abspath(source)) for source in sources])
    names = [os.path.relpath(os.path.abspath(source), common).replace(os.sep, "-") for source in sources]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--input_file: two files would become {name}.txt; rename one")
    return [
        TextTask(
            source,
            os.path.join(output_dir, "train", f"{name}.txt"),
            os.path.join(output_dir, "eval", f"{name}.txt"),
            number,
            len(sources),
            num_held_out,
            settings,
        )
        for number, (source, name) in enumerate(zip(sources, names))
    ]


def unfinished(tasks: list[TextTask]) -> list[TextTask]:
    """The tasks whose text is missing. ValueError where an output exists that was made from something else."""
    return [task for task in tasks if not provenance.is_finished(task.train_output, _origin(task))]


def make(task: TextTask, report: Report) -> tuple[int, int]:
    """Writes a task's text, each file complete or not at all; returns how many documents train and are held out."""
    documents = list(extract(task.source, task.settings, Counter()))
    held_out = choose_held_out(task, len(documents))
    training = [document for number, document in enumerate(documents) if number not in held_out]
    counts = {"documents": len(training), "held_out": len(held_out)}
    try:
        for output in (task.eval_output, task.train_output):
            provenance.remove_partials(output)
        if held_out:
            with atomic_write(task.eval_output) as file:
                corpus.write_documents(file, [documents[number] for number in sorted(held_out)])
        with atomic_write(task.train_output) as file:
            corpus.write_documents(file, training)
            provenance.write(task.train_output, file, _origin(task), counts)
    except OSError as error:
        raise ValueError(f"{task.train_output}: cannot be written ({error.strerror})") from None
    return len(training), len(held_out)


def _origin(task: TextTask) -> provenance.Origin:
    settings = {name: getattr(task, name) for name in ("number", "num_files", "num_held_out")}
    settings.update(dataclasses.asdict(task.settings))
    text = provenance.describe_text((corpus.whole(task.source),))
    return provenance.Origin({**settings, "sentencex": metadata.version("sentencex")}, "", text)


def choose_held_out(task: TextTask, num_documents: int) -> set[int]:
    """Indices of a file's held-out documents, by the rule of MLPerf's pick_eval_samples.py and split scripts.

    Each file holds out an equal share, drawn with a seed that depends on the file's number.
    """
    wanted = (task.number + 1) * task.num_held_out // task.num_files - task.number * task.num_held_out // task.num_files
    if wanted and wanted >= num_documents:
        raise ValueError(
            f"{task.source}: {num_documents} articles, and {wanted} of each file are to be held out; "
            f"lower --num_held_out {task.num_held_out}"
        )
    rng = random.Random(_SEED + _SEED_STEP * task.number)
    chosen: set[int] = set()
    while len(chosen) < wanted:
        chosen.add(int(rng.random() * num_documents))
    return chosen
