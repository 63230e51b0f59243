"""The embedded demo's data: vocabulary, bert_config.json, training shards and held-out evaluation shards.

Its text is Python's language reference and the docstrings of installed packages: English text that every machine has
that can train. Source files are parsed, never imported. The docstrings of a file are one document.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import json
import os
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

import numpy as np

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data import vocab
from bert_pretrain.data.shards.tfrecord import write_shard
from bert_pretrain.make_data.shards.fast_examples import draw_examples
from bert_pretrain.make_data.shards.instances import tokenize_documents
from bert_pretrain.make_data.shards.serialization import serialize_examples
from bert_pretrain.make_data.task_progress import ReportProgress
from bert_pretrain.make_data.tokenization import LineTokenizer
from bert_pretrain.make_data.vocabulary.training import train_vocabulary
from bert_pretrain.system import worker_pool
from bert_pretrain.system.files import open_regular, write_json
from bert_pretrain.system.locks import DATA, locked_directory

_PROVENANCE_FILE = "demo.json"

# The text.
_PACKAGES = ("absl", "keras", "numpy", "tensorflow")  # installed wherever training runs
_NOT_PROSE_DIRECTORIES = frozenset({"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"})
_NOT_PROSE = re.compile(r">>>|```|\.\. |::|[=\-~^]{4}|[{}\\|<]|\w\(\)?.*=.*\)|^\s*[@#$%]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[\"'(`*]?[A-Z])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Fig|Eq|Sec|Dr|Mr|No|al|approx|resp)|\b[A-Z])\.$")
_FILES_AT_ONCE = 64
_MIN_WORDS, _MIN_LETTER_SHARE = 4, 0.75


class DemoSettings(NamedTuple):
    """The settings that the demo's data depend on."""

    version: int = 3  # of the text and of the procedure
    vocab_size: int = 8000
    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    dupe_factor: int = 5
    random_seed: int = 12345
    documents_per_held_out: int = 10
    num_train_shards: int = 8
    num_eval_shards: int = 2
    single_sequence: bool = False


def make_demo(directory: str, settings: DemoSettings = DemoSettings()) -> dict[str, Any]:  # noqa: B008 (immutable)
    """Makes the demo's data in `directory`, unless it is complete there already; returns its counts."""
    found = _read_provenance(directory)
    if found is not None and _has_settings(found, settings) and _is_complete(directory, found):
        return found["counts"]
    with locked_directory(directory, DATA):
        return _make(directory, settings)


def _make(directory: str, settings: DemoSettings) -> dict[str, Any]:
    _clear(directory, _read_provenance(directory))
    documents = demo_documents()
    every = settings.documents_per_held_out
    held_out = documents[every - 1 :: every]
    training = [document for number, document in enumerate(documents) if number % every != every - 1]
    sentences = (sentence for document in training for sentence in document)
    vocabulary = train_vocabulary(sentences, settings.vocab_size, lower_case=True)
    vocab.write_vocabulary(os.path.join(directory, "vocab.txt"), vocabulary)
    _write_model_config(os.path.join(directory, "bert_config.json"), settings, len(vocabulary.entries))
    counts = {}
    for split, part, num_passes, num_shards in (
        ("train", training, settings.dupe_factor, settings.num_train_shards),
        ("eval", held_out, 1, settings.num_eval_shards),
    ):
        paths = [os.path.join(directory, split, name) for name in _shard_names(num_shards)]
        counts[split] = _write_shards(paths, part, vocabulary, num_passes, settings)
    _write_provenance(directory, settings, counts)
    return counts


def _write_shards(
    paths: list[str],
    documents: list[list[str]],
    vocabulary: vocab.Vocabulary,
    num_passes: int,
    settings: DemoSettings,
) -> dict[str, Any]:
    text = tokenize_documents(documents, LineTokenizer(vocabulary, lower_case=True))
    rng = np.random.default_rng([settings.random_seed, num_passes])
    config = ExampleConfig(
        settings.max_seq_length,
        settings.max_predictions_per_seq,
        settings.masked_lm_prob,
        settings.short_seq_prob,
        num_passes,
        single_sequence=settings.single_sequence,
    )
    blocks = draw_examples(text, config, vocabulary, rng)
    records = [record for block in blocks for record in serialize_examples(*block)]
    for number, path in enumerate(paths):
        write_shard(path, records[number :: len(paths)])
    return {"documents": text.num_documents, "tokens": len(text.ids), "examples": len(records)}


def _shard_names(num_shards: int) -> list[str]:
    return [f"part-{number:05d}-of-{num_shards:05d}.tfrecord" for number in range(num_shards)]


def _write_model_config(path: str, settings: DemoSettings, vocab_size: int) -> None:
    # Without dropout, as all runs of the study (docs/recipes.md).
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.check()
    write_json(path, dataclasses.asdict(config), indent=2)


def _read_provenance(directory: str) -> Optional[dict[str, Any]]:
    try:
        with open_regular(os.path.join(directory, _PROVENANCE_FILE)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _has_settings(found: dict[str, Any], settings: DemoSettings) -> bool:
    """What an older version did not know had its default."""
    return {**DemoSettings()._asdict(), **found["settings"]} == settings._asdict()


def _is_complete(directory: str, found: dict[str, Any]) -> bool:
    return bool(found["files"]) and all(
        os.path.isfile(path) and os.path.getsize(path) == size
        for path, size in ((os.path.join(directory, name), size) for name, size in found["files"].items())
    )


def _write_provenance(directory: str, settings: DemoSettings, counts: dict[str, Any]) -> None:
    """Describes the data. Without counts: work has begun, and shards found here later are the demo's own."""
    names = ["vocab.txt", "bert_config.json", *_shards_in(directory)] if counts else []
    files = {name: os.path.getsize(os.path.join(directory, name)) for name in names}
    content = {"settings": settings._asdict(), "counts": counts, "files": files}
    write_json(os.path.join(directory, _PROVENANCE_FILE), content, indent=2)


def _shards_in(directory: str) -> list[str]:
    names = [f"{split}/{name}" for split in ("train", "eval") for name in os.listdir(os.path.join(directory, split))]
    return sorted(name for name in names if name.endswith(".tfrecord"))


def _clear(directory: str, found: Optional[dict[str, Any]]) -> None:
    """Removes the demo's old shards. ValueError where the shards in `directory` are not the demo's."""
    try:
        for split in ("train", "eval"):
            os.makedirs(os.path.join(directory, split), exist_ok=True)
        stale = _shards_in(directory)
        if stale and found is None:
            raise ValueError(f"--output_dir {directory} holds shards that are not the demo's; name another directory")
        _write_provenance(directory, DemoSettings(), {})
        for name in stale:
            os.remove(os.path.join(directory, name))
    except OSError as error:
        raise ValueError(f"--output_dir {directory} cannot be written: {error.strerror}") from None


def demo_documents(num_processes: int = 2) -> list[list[str]]:
    """Documents of at least two sentences, in the same order for the same installed files; no sentence occurs twice."""
    paths = _source_files()
    pieces = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
    found: dict[int, list[list[str]]] = {}
    with worker_pool.worker_processes(num_processes) as workers:
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


def _documentation_of_files(paths: list[str], report: ReportProgress) -> list[list[str]]:
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
