"""The embedded demo's text: Python's language reference, and docstrings of installed packages.

Every machine that can train has this English text. Source files are parsed, never imported. The docstrings of a file
are one document.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator

from bert_pretrain.system import worker_pool

_PACKAGES = ("absl", "keras", "numpy", "tensorflow")  # installed wherever training runs
_NOT_PROSE_DIRECTORIES = frozenset({"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"})
_NOT_PROSE = re.compile(r">>>|```|\.\. |::|[=\-~^]{4}|[{}\\|<]|\w\(\)?.*=.*\)|^\s*[@#$%]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[\"'(`*]?[A-Z])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Fig|Eq|Sec|Dr|Mr|No|al|approx|resp)|\b[A-Z])\.$")
_FILES_AT_ONCE = 64
_MIN_WORDS, _MIN_LETTER_SHARE = 4, 0.75


def demo_documents(num_processes: int = 2) -> list[list[str]]:
    """Documents of at least two sentences, in the same order for the same installed files; no sentence occurs twice."""
    paths = _source_files()
    pieces = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
    found: dict[int, list[list[str]]] = {}
    with worker_pool.workers(num_processes) as workers:
        assert workers is not None, "the demo does not run under mpirun"
        workers.run(_documentation_of_files, pieces, lambda number, share: None, found.__setitem__)
    texts = [text for number in range(len(pieces)) for text in found[number]]
    return _without_repetition([*_language_reference(), *texts])


def _language_reference() -> Iterator[list[str]]:
    from pydoc_data.topics import topics  # 500 kB of text as a dictionary

    return (list(_sentences(topics[name])) for name in sorted(topics))


def _source_files() -> list[str]:
    roots = [sysconfig.get_paths()["stdlib"]]
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        roots.extend(found.submodule_search_locations if found and found.submodule_search_locations else ())
    paths = []
    for root in roots:
        for directory, subdirectories, names in os.walk(root):
            subdirectories[:] = sorted(set(subdirectories) - _NOT_PROSE_DIRECTORIES)
            paths.extend(os.path.join(directory, name) for name in sorted(names) if name.endswith(".py"))
    return paths


def _documentation_of_files(paths: list[str], report: worker_pool.ReportProgress) -> list[list[str]]:
    return [_documentation(path) for path in paths]


def _documentation(path: str) -> list[str]:
    """The sentences of a source file's docstrings, in order; none for a file that cannot be parsed."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escape sequences in those files
            tree = ast.parse(file.read())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return [sentence for text in found if text for sentence in _sentences(text)]


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if _NOT_PROSE.search(paragraph):
            continue
        joined = ""
        for part in _SENTENCE_END.split(" ".join(paragraph.split())):
            joined = f"{joined} {part}" if joined else part
            if not _ABBREVIATION.search(joined):
                yield joined
                joined = ""
        if joined:
            yield joined


def _without_repetition(documents: Iterable[list[str]]) -> list[list[str]]:
    seen: set[bytes] = set()
    kept = []
    for document in documents:
        sentences = []
        for sentence in document:
            letters = re.sub(r"[^a-z]+", "", sentence.lower())
            if len(sentence.split()) < _MIN_WORDS or len(letters) < _MIN_LETTER_SHARE * len(sentence.replace(" ", "")):
                continue
            key = hashlib.blake2b(letters.encode(), digest_size=8).digest()
            if key not in seen:
                seen.add(key)
                sentences.append(sentence)
        if len(sentences) >= 2:
            kept.append(sentences)
    return kept
