"""Articles -> sentences."""

from __future__ import annotations

import html
import re

_MIN_WORDS = 4  # of a paragraph; a shorter one is a heading, or the rest of a list or a table

# What WikiExtractor leaves in place of formulas, templates and markup.
_PLACEHOLDER = re.compile(r"\b(?:formula|codice)_\d+\b")
_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|'{2,}", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s?[(\[][\s,;:–-]*[)\]]")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:!?])")


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
