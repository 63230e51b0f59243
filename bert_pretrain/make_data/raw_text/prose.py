"""Prose out of plain text and reStructuredText: paragraphs, without headings, lists, tables and code.

A block is a run of lines between blank lines. Each is told by its lines; what it is not is counted by kind.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Optional

from bert_pretrain.make_data.raw_text.layout import SENTENCE_END

_MAX_BLOCK = 2_000  # lines; a longer block is cut
MIN_WORDS, MIN_CHARS = 4, 12  # of a paragraph, where words are divided by spaces and where they are not
_MIN_LETTER_SHARE = 0.7  # of the characters of prose, without spaces
_ASCII = re.compile(r"[\x00-\x7f]+")
_ASCII_OTHERS = bytes(code for code in range(128) if not chr(code).isalpha())
_RULE = re.compile(r"^\s*([=\-~^\"'`*+#.:_])\1{2,}\s*$")
_GRID = re.compile(r"^\s*[+|=:\-\s]*(?:\+|\||={3,}|-{3,}\s+-{3,})[+|=:\-\s]*$")
_BULLET = re.compile(r"^\s*(?:[-*•‣◦+o·]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|#\.)\s+(?=\S)")
_CODE_LINE = re.compile(r"^\s*(?:>>>|\.\.\. |\$ |#!|//|/\*|[{}]\s*$)|[;{}]\s*$|^\s*\w+ ?[(=]|</?\w+[^>]*>\s*$")
_MARK = re.compile(r"^\s*(--|//|[#>%;*|])(?:\s+|$)")
_DIRECTIVE = re.compile(r"^\.\.(?:\s|$)")
_ADMONITION = re.compile(r"^\.\.\s+(?:note|warning|tip|important|hint|caution|attention|danger)::\s*")
_FIELD = re.compile(r"^:(?!\w+:`)[\w \-*]+:(?:\s|$)")
_ROLE = re.compile(r":(?:[\w+-]+:)?[\w+-]+:`~?!?([^`]+?)(?:\s+<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}")
_LITERAL = re.compile(r"``(.+?)``")
_INTERPRETED = re.compile(r"`([^`]+)`_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_FOOTNOTE = re.compile(r"\s?\[(?:#\w*|\*|\d+)\]_")


def paragraphs(lines: Iterable[str], is_rst: bool, is_wrapped: bool, left_out: Counter) -> Iterator[str]:
    """The paragraphs of prose, each in one line. is_wrapped: the lines between blank lines are one paragraph."""
    blocks = _Blocks(is_rst, left_out)
    for block in _blocks(lines, is_wrapped):
        yield from blocks.prose(block)


def _blocks(lines: Iterable[str], is_wrapped: bool) -> Iterator[list[str]]:
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line.expandtabs())
        if block and (not line.strip() or not is_wrapped or len(block) == _MAX_BLOCK):
            yield block
            block = []
    if block:
        yield block


class _Blocks:
    """Tells what the blocks of a text are, in their order."""

    def __init__(self, is_rst: bool, left_out: Counter) -> None:
        self._is_rst, self._left_out = is_rst, left_out
        self._skipped: Optional[tuple[int, str]] = None  # blocks that are indented deeper are of this kind

    def prose(self, block: list[str]) -> Iterator[str]:
        """The paragraphs of a block."""
        indent = min(len(line) - len(line.lstrip()) for line in block)
        if self._skipped and indent > self._skipped[0]:
            self._left_out[self._skipped[1]] += 1
            return
        self._skipped = None
        if self._is_rst:
            block = self._after_markup(block, indent)
        block = self._without_heading(_without_marks(block))
        kind = _kind(block) if block else None
        if kind:
            self._left_out[kind] += 1
        elif block:
            for text in _items(block):
                yield from self._kept(text, indent, bool(_BULLET.match(block[0])))

    def _after_markup(self, block: list[str], indent: int) -> list[str]:
        """The block without a directive's or a field's marks; nothing where its content is no prose."""
        first = block[0].strip()
        if _ADMONITION.match(first):  # its text may begin in the same line
            return [text for text in (_ADMONITION.sub("", first), *block[1:]) if text]
        if _DIRECTIVE.match(first) or first.startswith("__ "):
            self._skipped = (indent, "directives and comments")
        elif not _FIELD.match(first):
            return block
        self._left_out["directives and comments"] += 1
        return []

    def _without_heading(self, block: list[str]) -> list[str]:
        """Leaves out a title with its line of punctuation, and such a line that stands alone."""
        for number in (2, 1, 0):
            if len(block) > number and _RULE.match(block[number]) and not _GRID.match(block[0] + block[-1]):
                self._left_out["headings"] += 1
                return block[number + 1 :]
        return block

    def _kept(self, text: str, indent: int, is_item: bool) -> Iterator[str]:
        if text.endswith("::"):
            self._skipped = (indent, "code")
            text = text[:-2].rstrip()
            text += ":" if text and text[-1].isalnum() else ""
        if self._is_rst:
            text = without_roles(text)
        if is_prose(text):
            yield text
        else:
            self._left_out["list items" if is_item else "headings and fragments"] += 1


def _without_marks(block: list[str]) -> list[str]:
    """The block without the mark of a comment or a quotation that each line begins with."""
    marks = [_MARK.match(line) for line in block]
    if len(block) > 1 and all(marks) and len({mark[1] for mark in marks}) == 1:
        block = [line[mark.end() :] for line, mark in zip(block, marks)]
        return [line for line in block if line.strip()]
    return block


def _kind(block: list[str]) -> Optional[str]:
    """What a block is that is no prose."""
    if any(_GRID.match(line) for line in block):
        return "tables"
    if len(block) > 1 and sum("   " in line.strip() or line.count("|") > 1 for line in block) * 2 > len(block):
        return "tables"
    if sum(bool(_CODE_LINE.search(line)) for line in block) * 2 > len(block):
        return "code"
    return None


def _items(block: list[str]) -> Iterator[str]:
    """The block in one line, or each item of a list."""
    item: list[str] = []
    is_list = bool(_BULLET.match(block[0]))
    for line in block:
        if is_list and _BULLET.match(line):
            if item:
                yield join(item)
            item, line = [], _BULLET.sub("", line)
        item.append(line)
    yield join(item)


def join(lines: Iterable[str]) -> str:
    """The text of wrapped lines: with a space between, but none between ideographs or after a word's hyphen."""
    text = ""
    for line in lines:
        line = " ".join(line.split())
        if text and line and not _are_joined(text, line):
            text += " "
        text += line
    return text


def _are_joined(before: str, after: str) -> bool:
    is_cut_word = before[-1] in "-‐" and len(before) > 1 and before[-2].isalpha() and after[0].islower()
    return is_cut_word or (is_wide(before[-1]) and is_wide(after[0]))


def is_wide(char: str) -> bool:
    """Whether the character is of a script that writes words without spaces between them."""
    return unicodedata.east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"  # Korean has spaces


def without_roles(text: str) -> str:
    """A paragraph of reStructuredText without roles, links, literals, emphasis and footnotes."""
    for pattern in (_ROLE, _LINK, _LITERAL, _INTERPRETED):
        text = pattern.sub(r"\1", text)
    return _FOOTNOTE.sub("", _EMPHASIS.sub(r"\2", text)).replace("\\ ", "")


def is_prose(text: str) -> bool:
    """Whether a text is mostly letters, long enough for a sentence, and holds the end of one."""
    dense = text.replace(" ", "")
    is_long = len(text.split()) >= MIN_WORDS or sum(map(is_wide, text)) >= MIN_CHARS
    return is_long and _num_letters(dense) >= _MIN_LETTER_SHARE * len(dense) and bool(SENTENCE_END.search(text))


def _num_letters(text: str) -> int:
    """Letters and combining marks; those of ASCII are counted as bytes, which is ten times as fast."""
    num_ascii = len(text.encode("ascii", "ignore").translate(None, _ASCII_OTHERS))
    if text.isascii():
        return num_ascii
    beyond = _ASCII.sub("", text)
    return num_ascii + sum(char.isalpha() or unicodedata.category(char)[0] == "M" for char in beyond)
