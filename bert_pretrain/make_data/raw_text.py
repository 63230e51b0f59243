"""Raw text (WikiExtractor's files, JSON lines, plain text) -> documents of sentences."""

from __future__ import annotations

import glob
import html
import importlib.util
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from bert_pretrain.files import atomic_write
from bert_pretrain.make_data import corpus, provenance
from bert_pretrain.worker_pool import Report

_SEED, _SEED_STEP = 12_345, 13  # of MLPerf's choice of held-out articles
_MIN_WORDS = 4  # of a paragraph; a shorter one is a heading, or the rest of a list or a table

# What WikiExtractor leaves in place of formulas, templates and markup.
_PLACEHOLDER = re.compile(r"\b(?:formula|codice)_\d+\b")
_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|'{2,}", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s?[(\[][\s,;:–-]*[)\]]")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:!?])")


class TextTask(NamedTuple):
    """A raw file, and the two files that its documents are written to."""

    source: str
    train_output: str
    eval_output: str
    number: int  # index of the file among num_files; the held-out documents depend on it
    num_files: int
    num_held_out: int  # documents, of all files together
    language: str


def find_files(patterns: str) -> list[str]:
    """The files that comma-separated patterns match, with all below matching folders; hidden files are left out.

    ValueError for a pattern without a match.
    """
    paths: list[str] = []
    for pattern in patterns.split(","):
        found: list[str] = []
        for path in sorted(glob.glob(pattern.strip())):
            found += _files_below(path) if os.path.isdir(path) else [path]
        if not found:
            raise ValueError(f"--input_file: no file matches {pattern.strip()}")
        paths += found
    return paths


def _files_below(directory: str) -> list[str]:
    found = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [os.path.join(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def plan(patterns: str, output_dir: str, num_held_out: int, language: str) -> list[TextTask]:
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
            language,
        )
        for number, (source, name) in enumerate(zip(sources, names))
    ]


def unfinished(tasks: list[TextTask]) -> list[TextTask]:
    """The tasks whose text is missing. ValueError where an output exists that was made from something else."""
    return [task for task in tasks if not provenance.is_finished(task.train_output, _origin(task))]


def make(task: TextTask, report: Report) -> tuple[int, int]:
    """Writes a task's text, each file complete or not at all; returns how many documents train and are held out."""
    documents = [sentences for text in read_articles(task.source) if (sentences := split(text, task.language))]
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
    settings = {name: getattr(task, name) for name in ("number", "num_files", "num_held_out", "language")}
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


def read_articles(path: str) -> Iterator[str]:
    """The articles of a file: JSON lines with "text", or plain text with blank lines between articles.

    A line of an article is a paragraph. ValueError names file and line.
    """
    lines = corpus.read_lines(corpus.whole(path))
    first = next((line for line in lines if line), "")
    everything = corpus.read_lines(corpus.whole(path))
    if first.startswith("{"):
        yield from _json_articles(path, everything)
    else:
        yield from ("\n".join(document) for document in corpus.group(everything))


def _json_articles(path: str, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            article = json.loads(line)["text"]
            article.encode()  # half of a surrogate pair cannot be written
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            article = None
        if article is None:
            raise ValueError(f'{path}: line {number} is not a JSON object with a "text"; each line must be one')
        yield article


def split(article: str, language: str) -> list[str]:
    """The sentences of an article, without headings and remains of markup; `language` is sentencex's code."""
    import sentencex  # of the data extra

    sentences: list[str] = []
    for paragraph in article.split("\n"):
        clean = clean_paragraph(paragraph)
        if len(clean.split()) >= _MIN_WORDS:
            sentences += [stripped for part in sentencex.segment(language, clean) if (stripped := part.strip())]
    return sentences


def clean_paragraph(text: str) -> str:
    """Text without entities, placeholders, markup, empty brackets and runs of space."""
    text = _MARKUP.sub("", html.unescape(text))
    text = _EMPTY_BRACKETS.sub("", _PLACEHOLDER.sub("", text))
    return _SPACE_BEFORE_STOP.sub(r"\1", " ".join(text.split()))
