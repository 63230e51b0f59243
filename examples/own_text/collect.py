"""Text for the example, from the Python installation that runs it: docstrings of its packages.

python collect.py OUT writes
  OUT/text/PACKAGE/*.txt       the docstrings of seven tenths of each package's source files: the text to pretrain on
  OUT/labelled/train.jsonl     {"label": PACKAGE, "text": a paragraph of the other files' docstrings}
  OUT/labelled/test.jsonl      the same, of other files again

The task is to tell which package a paragraph is from. Paragraphs that name a package are not used for it, nor those
that the text to pretrain on has, too. Source files are parsed, never imported.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

# All are there after `bash init_tf.sh --data --horovod --interop`; "stdlib" is Python's standard library.
PACKAGES = "stdlib networkx numpy scipy sympy tensorflow torch transformers"
NAMES = re.compile(
    r"python|networkx|numpy|scipy|sympy|tensorflow|torch|transformers|hugging|keras|\b(np|tf|nx|xla)\b", re.I
)
NOT_PROSE = re.compile(r">>>|```|::|\.\. |[=\-~^]{4}|[{}\\|<>=]|\w\(|\w\.\w+\.\w")
LEFT_OUT = {"site-packages", "test", "tests", "testing", "idlelib", "lib2to3", "__pycache__"}
MIN_WORDS, MAX_WORDS = 20, 80  # of a labelled paragraph
MAX_EXAMPLES = 100  # of a label, in each of the two files


def main() -> None:
    """Reads every package once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", default=PACKAGES, help=f"default: {PACKAGES}")
    parsed = parser.parse_args()
    texts = {package: dict(documentation(package)) for package in parsed.packages.split()}
    unlabelled = write_text(texts, parsed.out / "text")
    for part in ("train", "test"):
        write_examples(texts, unlabelled, part, parsed.out / "labelled" / f"{part}.jsonl")


def documentation(package: str) -> Iterator[tuple[str, list[str]]]:
    """(Name, docstrings) of the source files of a package that have any."""
    root = folder_of(package)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found = [] if LEFT_OUT & set(parts) else docstrings(path)
        if found:
            yield ".".join((package, *parts)), found


def folder_of(package: str) -> Path:
    """Where the package's source files are."""
    if package == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"error: {package} is not installed; bash init_tf.sh --data --horovod --interop installs it")
    return Path(next(iter(spec.submodule_search_locations)))


def docstrings(path: Path) -> list[str]:
    """All docstrings of a source file; none of one that this Python cannot parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escape sequences in that file
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text]


def part_of(name: str) -> str:
    """Part of a source file, "text", "train" or "test". It depends on the file's name alone."""
    number = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 10
    return {0: "train", 1: "test", 2: "test"}.get(number, "text")


def paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Paragraphs of docstrings, each in one line."""
    for text in texts:
        yield from (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))


def write_text(texts: dict[str, dict[str, list[str]]], folder: Path) -> set[str]:
    """One file for each source file. Returns all paragraphs that were written."""
    written: set[str] = set()
    for package, files in texts.items():
        (folder / package).mkdir(parents=True, exist_ok=True)
        chosen = {name: found for name, found in files.items() if part_of(name) == "text"}
        for name, found in chosen.items():
            (folder / package / f"{name}.txt").write_text("\n\n".join(found), encoding="utf-8", errors="replace")
            written.update(paragraphs(found))
        size = sum(len(text) for found in chosen.values() for text in found)
        print(f"{folder / package}: {len(chosen)} files, {size / 1e6:.1f} million characters")
    return written


def write_examples(texts: dict[str, dict[str, list[str]]], unlabelled: set[str], part: str, path: Path) -> None:
    """An equal number of paragraphs of each package, in random order."""
    candidates = {
        package: sorted(
            {
                paragraph
                for name, found in files.items()
                if part_of(name) == part
                for paragraph in paragraphs(found)
                if MIN_WORDS <= len(paragraph.split()) <= MAX_WORDS
                and not NOT_PROSE.search(paragraph)
                and not NAMES.search(paragraph)
                and paragraph not in unlabelled
            }
        )
        for package, files in texts.items()
    }
    number = min(MAX_EXAMPLES, *map(len, candidates.values()))
    generator = random.Random(0)
    examples = [
        {"label": package, "text": paragraph}
        for package, found in candidates.items()
        for paragraph in generator.sample(found, number)
    ]
    generator.shuffle(examples)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
    print(f"{path}: {number} paragraphs of each of {len(candidates)} packages")


if __name__ == "__main__":
    main()
