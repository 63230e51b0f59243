"""Sentences of paragraphs, by sentencex's rules for a language."""

from __future__ import annotations

import functools
import html
import importlib.util
import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from bert_pretrain.config.languages import find_language
from bert_pretrain.make_data.raw_text.prose import MIN_CHARS, MIN_WORDS, is_wide

# What WikiExtractor leaves in place of formulas, templates and markup.
_PLACEHOLDER = re.compile(r"\b(?:formula|codice)_\d+\b")
_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|'{2,}", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\s?[(\[][\s,;:–-]*[)\]]")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:!?])")
_GREEK_QUESTION_MARK = "\u037e"  # Unicode's canonical form of it is a semicolon, which alone sentencex knows
_RULES_BEFORE_1 = {"ja": "en", "uk": "ru"}  # of sentencex before version 1, which has none of their own


def check_splitter() -> None:
    """ValueError where sentencex is not installed."""
    if importlib.util.find_spec("sentencex") is None:
        raise ValueError("--make_text needs sentencex, which is not installed; run: bash init_tf.sh --data")


@functools.lru_cache(maxsize=1)
def _splitter() -> Any:
    import sentencex  # of the data extra

    return sentencex


@functools.lru_cache(maxsize=1)
def rules_of(language: str) -> str:
    """The code of the language whose rules sentencex uses for a language; `language` is one of find_language's."""
    found = find_language(language)
    assert found, language
    is_old = metadata.version("sentencex").startswith("0.")  # the last one for Python 3.8 and 3.9
    return _RULES_BEFORE_1.get(found.rules, found.rules) if is_old else found.rules


def of_paragraph(text: str, language: str) -> list[str]:
    """The sentences of a paragraph that hold a letter; `language` is a code that find_language knows."""
    return [sentence for sentence in _divided(text, language) if any(map(str.isalpha, sentence))]


def _divided(text: str, language: str) -> list[str]:
    rules = rules_of(language)
    if rules == "el":
        text = text.replace(_GREEK_QUESTION_MARK, ";")
    return [stripped for part in _splitter().segment(rules, text) if (stripped := part.strip())]


def of_article(lines: Iterable[str], language: str, is_mlperf: bool = False) -> list[str]:
    """The sentences of an article with a paragraph a line, without headings and remains of wiki markup.

    is_mlperf: English text stays as MLPerf's pipeline has always had it, with sentences that hold no letter.
    """
    found: list[str] = []
    for line in lines:
        clean = clean_paragraph(line)
        # A shorter line is a heading, or the rest of a list or a table.
        if len(clean.split()) >= MIN_WORDS:
            found += _divided(clean, language) if is_mlperf else of_paragraph(clean, language)
        # Some scripts have no spaces between words.
        elif not (is_mlperf and language == "en") and sum(map(is_wide, clean)) >= MIN_CHARS:
            found += of_paragraph(clean, language)
    return found


def clean_paragraph(text: str) -> str:
    """Text without entities, placeholders, markup, empty brackets and runs of space."""
    text = _MARKUP.sub("", html.unescape(text))
    text = _EMPTY_BRACKETS.sub("", _PLACEHOLDER.sub("", text))
    return _SPACE_BEFORE_STOP.sub(r"\1", " ".join(text.split()))
