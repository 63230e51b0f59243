"""How plain text is laid out: what a line is, and where a document ends. Decided by looking at its first lines."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import NamedTuple

MAX_LINES = 20_000  # that are looked at
_STOPS = "。！？｡।॥۔؟։።፧။។"  # of Chinese, Hindi, Urdu, Arabic, Armenian, Amharic, Burmese, Khmer
SENTENCE_END = re.compile(rf"""(?:[.!?…]["'”’»)\]]*(?=\s|$))|[{_STOPS}]""")
_ENDS = re.compile(rf"""[.!?…:{_STOPS}]["'”’»)\]]*$""")
_MIN_SENTENCE_SHARE = 0.85  # of the lines end a sentence, where each is one
_MAX_INNER_SHARE = 0.2  # of the lines hold a sentence's end before their own, where each is one
_LONG_LINE = 140  # characters; no editor wraps lines so far out


class Layout(NamedTuple):
    """What a line of a text is, and what a document."""

    line: str  # sentence, paragraph or part (of a paragraph whose lines are wrapped)
    document: str  # blank_line or file
    reason: str


def look(lines: Sequence[str]) -> Layout:
    """The layout of a text that begins with these lines."""
    stripped = [line.strip() for line in lines[:MAX_LINES]]
    texts = [line for line in stripped if line]
    groups = _group_sizes(stripped)
    has_groups = len(groups) > 1 and statistics.mean(groups) >= 2
    document, between = ("blank_line", ", blank lines between documents") if has_groups else ("file", "")
    ending = sum(bool(_ENDS.search(text)) for text in texts)
    inner = sum(bool(SENTENCE_END.search(text[:-3])) for text in texts)
    if texts and statistics.median(map(len, texts)) > _LONG_LINE:
        return Layout("paragraph", document, f"a paragraph a line{between}")
    if ending < _MIN_SENTENCE_SHARE * len(texts):
        return Layout("part", "file", "wrapped lines, blank lines between paragraphs")
    if inner > _MAX_INNER_SHARE * len(texts):
        return Layout("paragraph", document, f"a paragraph a line{between}")
    return Layout("sentence", document, f"a sentence a line{between}")


def _group_sizes(lines: Sequence[str]) -> list[int]:
    """Numbers of lines between blank lines."""
    sizes, size = [], 0
    for line in [*lines, ""]:
        if line:
            size += 1
        elif size:
            sizes.append(size)
            size = 0
    return sizes
