"""Words that must not come back: references to documents outside of the repository, and private names of things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".sh", ".toml", ".flags", ".cff", ".h", ".cc", ".txt", ".json"}
LEFT_OUT = {".git", ".venv", ".cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "results", "build", "__pycache__"}

# What is not in the repository cannot be cited.
ELSEWHERE = re.compile(r"\bfacts\s\d|\bfacts[/]|\bdesign\s\d|\.\./[s]hared")
# The field's words are DeepSparkHub, user and GPU.
PRIVATE_WORDS = re.compile(r"\bthe\sseed\b(?! of)|\bthe\sperson\b|(\b|_)c[a]rds?(\b|_)", re.IGNORECASE)
# Names of scripts and of their folders contain the word.
NAMES = re.compile(r"run_1card_FPS|run_multi_card_FPS|seed_1card|seed_multi_card|demo_1card|demo_multi_card")


def lines() -> Iterator[tuple[str, str]]:
    """'path:line' and text of every line of the project's texts but this one's."""
    for path in sorted(ROOT.rglob("*")):
        place = path.relative_to(ROOT)
        if LEFT_OUT & set(place.parts) or path.suffix not in SUFFIXES or not path.is_file() or path == Path(__file__):
            continue
        if any(part.endswith((".egg-info", ".venv")) for part in place.parts) or place.parts[:2] == ("tests", "golden"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield f"{place}:{number}", line


def test_nothing_cites_documents_outside_of_the_repository() -> None:
    assert [f"{place}: {line.strip()}" for place, line in lines() if ELSEWHERE.search(line)] == []


def test_the_field_s_words_are_used() -> None:
    found = [f"{place}: {line.strip()}" for place, line in lines() if PRIVATE_WORDS.search(NAMES.sub("", line))]
    assert found == []
