"""Prose out of text: how it is laid out, its paragraphs, and their sentences.

Paragraphs of plain text, reStructuredText, Markdown and HTML are found without headings, lists of fragments, tables and
code, which are counted by kind. Sentences follow sentencex's rules for a language.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import statistics
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Callable, NamedTuple, Optional

from bert_pretrain.config.languages import find_language
from bert_pretrain.make_data.text import html_pages
from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.make_data.text.reading import require_library

_STOPS = "。！？｡।॥۔؟։።፧။។"  # of Chinese, Hindi, Urdu, Arabic, Armenian, Amharic, Burmese, Khmer
_SENTENCE_END = re.compile(rf"""(?:[.!?…]["'”’»)\]]*(?=\s|$))|[{_STOPS}]""")

# What tells the layout of plain text.
MAX_LAYOUT_LINES = 20_000  # that are looked at
_LINE_END = re.compile(rf"""[.!?…:{_STOPS}]["'”’»)\]]*$""")
_MIN_SENTENCE_SHARE = 0.85  # of the lines end a sentence, where each is one
_MAX_INNER_SHARE = 0.2  # of the lines hold a sentence's end before their own, where each is one
_LONG_LINE = 140  # characters; no editor wraps lines so far out

# What tells prose.
_MIN_WORDS, _MIN_CHARS = 4, 12  # of a paragraph, where words are divided by spaces and where they are not
_MIN_LETTER_SHARE = 0.7  # of the characters of prose, without spaces
_ASCII = re.compile(r"[\x00-\x7f]+")
_ASCII_OTHERS = bytes(code for code in range(128) if not chr(code).isalpha())

# The marks of plain text and reStructuredText.
_MAX_BLOCK = 2_000  # lines between blank lines; a longer block is cut
_RULE = re.compile(r"^\s*([=\-~^\"'`*+#.:_])\1{2,}\s*$")
_NOT_OF_GRID = re.compile(r"[^+|=:\-\s]")
_GRID = re.compile(r"\+|\||===|---\s+---")
_BULLET = re.compile(r"^\s*(?:[-*•‣◦+o·]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|#\.)\s+(?=\S)")
_CODE_LINE = re.compile(r"^\s*(?:>>>|\.\.\. |\$ |#!|//|/\*|[{}]\s*$)|[;{}]\s*$|^\s*\w+ ?[(=]")
_TAG = re.compile(r"</?\w")
_MARK = re.compile(r"^\s*(--|//|[#>%;*|])(?:\s+|$)")
_DIRECTIVE = re.compile(r"^\.\.(?:\s|$)")
_ADMONITION = re.compile(r"^\.\.\s+(?:note|warning|tip|important|hint|caution|attention|danger)::\s*")
_FIELD = re.compile(r"^:(?!\w+:`)[\w \-*]+:(?:\s|$)")
_ROLE = re.compile(r":(?:[\w+-]+:)?[\w+-]+:`~?!?([^`]+?)(?:\s+<[^`<>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}")
_LITERAL = re.compile(r"``(.+?)``")
_INTERPRETED = re.compile(r"`([^`]+)`_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)(.{1,500}?)(?<=\S)\1(?![\w*])")
_FOOTNOTE = re.compile(r"\s?\[(?:#\w*|\*|\d+)\]_")

# What is left out of Markdown and HTML, and the elements of HTML that are paragraphs.
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_MARKDOWN_KINDS = {
    "heading_open": "headings", "fence": "code", "code_block": "code", "table_open": "tables", "html_block": "markup",
}  # fmt: skip
_HTML_KINDS = {
    "script": "markup", "style": "markup", "noscript": "markup", "template": "markup", "svg": "markup",
    "math": "markup", "head": "markup", "nav": "navigation", "header": "navigation", "footer": "navigation",
    "aside": "navigation", "form": "navigation", "pre": "code", "table": "tables", "figure": "tables",
    "rt": "readings", "rp": "readings",
    **{f"h{level}": "headings" for level in range(1, 7)},
}  # fmt: skip
_HTML_BLOCKS = {
    "address", "article", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "html", "li", "main", "ol", "p",
    "section", "ul",
}  # fmt: skip
_HTML_OF_HEAD = {
    "base", "basefont", "bgsound", "link", "meta", "noscript", "script", "style", "template", "title",
}  # fmt: skip

# Where long paragraphs are cut.
_MAX_PARAGRAPH = 10_000  # characters
_ENDS = (  # of sentences surely, of sentences as it seems, of words
    re.compile(rf"(?<=[^\W\d_]{{4}}[.!?])\s+(?=[^\W\d_a-z])|(?<=[{_STOPS}])(?![{_STOPS}」』”’）)])"),
    re.compile(r"(?<=[.!?…])\s+(?=[^\W_])"),
    re.compile(r"\s+"),
)

# What WikiExtractor leaves in place of formulas, templates and markup.
_PLACEHOLDER = re.compile(r"\b(?:formula|codice)_\d+\b")
_WIKI_MARKUP = re.compile(r"</?[a-z][^<>]*>|\[\[|\]\]|\{\{|\}\}|'{2,}", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]*>")
_EMPTY_BRACKETS = re.compile(r"\s?[(\[][\s,;:–-]*[)\]]")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:!?])")

_GREEK_QUESTION_MARK = "\u037e"  # Unicode's canonical form of it is a semicolon, which alone sentencex knows
_RULES_BEFORE_1 = {"ja": "en", "uk": "ru"}  # of sentencex before version 1, which has none of their own


class Layout(NamedTuple):
    """What a line of a text is, and what a document."""

    line: str  # sentence, paragraph or part (of a paragraph whose lines are wrapped)
    document: str  # blank_line or file
    reason: str


def find_layout(lines: Sequence[str]) -> Layout:
    """The layout of a text that begins with these lines."""
    stripped = [line.strip() for line in lines[:MAX_LAYOUT_LINES]]
    texts = [line for line in stripped if line]
    groups = _group_sizes(stripped)
    has_groups = len(groups) > 1 and statistics.mean(groups) >= 2
    document, between = ("blank_line", ", blank lines between documents") if has_groups else ("file", "")
    ending = sum(bool(_LINE_END.search(text)) for text in texts)
    inner = sum(bool(_SENTENCE_END.search(text[:-3])) for text in texts)
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


def plain_paragraphs(lines: Iterable[str], is_rst: bool, is_wrapped: bool, account: Account) -> Iterator[str]:
    """The paragraphs of plain text or reStructuredText, each in one line; the account gets other blocks and marks.

    is_wrapped: the lines between blank lines are one paragraph.
    """
    blocks = _Blocks(is_rst, account)
    for block in _blocks(lines, is_wrapped):
        num_left_out = account.left_out_characters()
        found = list(blocks.prose(block))
        num_chars = sum(map(count_characters, block)) - sum(map(count_characters, found))
        account.leave_out("markup", num_chars - (account.left_out_characters() - num_left_out))
        yield from found


def _blocks(lines: Iterable[str], is_wrapped: bool) -> Iterator[list[str]]:
    """Runs of lines between blank lines, or each line by itself."""
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

    def __init__(self, is_rst: bool, account: Account) -> None:
        self._is_rst, self._account = is_rst, account
        self._skipped: Optional[tuple[int, str]] = None  # blocks that are indented deeper are of this kind

    def prose(self, block: list[str]) -> Iterator[str]:
        """The paragraphs of a block."""
        indent = min(len(line) - len(line.lstrip()) for line in block)
        if self._skipped and indent > self._skipped[0]:
            self._leave_out(self._skipped[1], block)
            return
        self._skipped = None
        if self._is_rst:
            block = self._after_markup(block, indent)
        block = self._without_heading(_without_marks(block))
        kind = _kind(block) if block else None
        if kind:
            self._leave_out(kind, block)
        elif block:
            for text in _items(block):
                yield from self._kept(text, indent, bool(_BULLET.match(block[0])))

    def _leave_out(self, kind: str, lines: Iterable[str]) -> None:
        self._account.leave_out_block(kind, sum(map(count_characters, lines)))

    def _after_markup(self, block: list[str], indent: int) -> list[str]:
        """The block without a directive's or a field's marks; nothing where its content is no prose."""
        first = block[0].strip()
        if _ADMONITION.match(first):  # its text may begin in the same line
            return [text for text in (_ADMONITION.sub("", first), *block[1:]) if text]
        if _DIRECTIVE.match(first) or first.startswith("__ "):
            self._skipped = (indent, "directives and comments")
        elif not _FIELD.match(first):
            return block
        self._leave_out("directives and comments", block)
        return []

    def _without_heading(self, block: list[str]) -> list[str]:
        """Leaves out a title with its line of punctuation, and such a line that stands alone."""
        for number in (2, 1, 0):
            if len(block) > number and _RULE.match(block[number]) and not _is_grid(block[0] + block[-1]):
                self._leave_out("headings", block[: number + 1])
                return block[number + 1 :]
        return block

    def _kept(self, text: str, indent: int, is_item: bool) -> Iterator[str]:
        if text.endswith("::"):
            self._skipped = (indent, "code")
            text = text[:-2].rstrip()
            text += ":" if text and text[-1].isalnum() else ""
        if self._is_rst:
            text = without_rst_markup(text)
        if _is_prose(text):
            yield text
        else:
            self._leave_out("list items" if is_item else "headings and fragments", [text])


def _is_grid(line: str) -> bool:
    """Whether the line is part of a table's lines; one pattern for both conditions would take quadratic time."""
    return not _NOT_OF_GRID.search(line) and bool(_GRID.search(line))


def _ends_in_tag(line: str) -> bool:
    line = line.rstrip()
    return line.endswith(">") and bool(_TAG.search(line, line.rfind(">", 0, -1) + 1))


def _without_marks(block: list[str]) -> list[str]:
    """The block without the mark of a comment or a quotation that each line begins with."""
    marks = [mark for mark in map(_MARK.match, block) if mark]
    if len(block) > 1 and len(marks) == len(block) and len({mark[1] for mark in marks}) == 1:
        block = [line[mark.end() :] for line, mark in zip(block, marks)]
        return [line for line in block if line.strip()]
    return block


def _kind(block: list[str]) -> Optional[str]:
    """What a block is that is no prose."""
    if any(map(_is_grid, block)):
        return "tables"
    if len(block) > 1 and sum("   " in line.strip() or line.count("|") > 1 for line in block) * 2 > len(block):
        return "tables"
    if sum(bool(_CODE_LINE.search(line)) or _ends_in_tag(line) for line in block) * 2 > len(block):
        return "code"
    return None


def _items(block: list[str]) -> Iterator[str]:
    """The block in one line, or each item of a list."""
    item: list[str] = []
    is_list = bool(_BULLET.match(block[0]))
    for line in block:
        if is_list and _BULLET.match(line):
            if item:
                yield join_lines(item)
            item, line = [], _BULLET.sub("", line)
        item.append(line)
    yield join_lines(item)


def join_lines(lines: Iterable[str]) -> str:
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
    return is_cut_word or (_is_wide(before[-1]) and _is_wide(after[0]))


def without_rst_markup(text: str) -> str:
    """A paragraph of reStructuredText without roles, links, literals, emphasis and footnotes."""
    for pattern in (_ROLE, _LINK, _LITERAL, _INTERPRETED):
        text = pattern.sub(r"\1", text)
    return _FOOTNOTE.sub("", _EMPHASIS.sub(r"\2", text)).replace("\\ ", "")


def markdown_paragraphs(text: str, account: Account) -> Iterator[str]:
    """The paragraphs of a Markdown file, each in one line."""
    parser = require_library("markdown_it", "a Markdown file").MarkdownIt("commonmark").enable("table")
    within: list[str] = []  # headings and tables that are open
    found: list[str] = []
    num_left_out = account.left_out_characters()
    depth_of_lists = 0
    for token in parser.parse(_FRONT_MATTER.sub("", text)):
        if token.type in _MARKDOWN_KINDS:
            account.leave_out_block(_MARKDOWN_KINDS[token.type], count_characters(token.content))
        if token.type in ("heading_open", "table_open"):
            within.append(token.type)
        elif token.type in ("heading_close", "table_close"):
            within.pop()
        depth_of_lists += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type != "inline":
            continue
        parts = [
            child.content if child.type in ("text", "code_inline") else " " * child.type.endswith("break")
            for child in token.children
        ]
        if within:
            account.leave_out(_MARKDOWN_KINDS[within[-1]], count_characters("".join(parts)))
        else:
            found += _kept_paragraph(parts, depth_of_lists > 0, account)
    num_named = account.left_out_characters() - num_left_out
    account.leave_out("markup", count_characters(text) - sum(map(count_characters, found)) - num_named)
    return iter(found)


def html_paragraphs(text: str, account: Account) -> Iterator[str]:
    """The paragraphs of a page, each in one line: the text of the innermost blocks."""
    num_markup = count_characters(text)
    page = _OpenElements()
    parts: list[str] = []
    is_item = follows_block = False
    for event, value in html_pages.read_page(text):
        if event == html_pages.TEXT:
            num_chars = count_characters(value)
            num_markup -= num_chars
            if page.left_out:
                account.leave_out(page.left_out, num_chars)
                continue
            if follows_block:
                yield from _kept_paragraph(parts, is_item, account)
                parts, is_item = [], False
            parts.append(value)
            follows_block = False
        elif event == html_pages.END:
            was_left_out = page.left_out
            is_block = page.end(value)
            follows_block = is_block if is_block is not None and not was_left_out else follows_block
        elif event == html_pages.START:
            was_left_out = page.left_out
            page.start(value)
            if page.left_out:
                if not was_left_out:
                    account.leave_out_block(page.left_out, 0)
                continue
            follows_block = False
            if value == "br":
                parts.append(" ")
            elif value in _HTML_BLOCKS:
                yield from _kept_paragraph(parts, is_item, account)
                parts, is_item = [], value in ("li", "dd", "dt")
        elif not page.left_out:
            follows_block = False
    yield from _kept_paragraph(parts, is_item, account)
    account.leave_out("markup", num_markup)


class _OpenElements:
    """The elements of a page that are open, and whether what is read now is left out."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._counts: dict[str, int] = {}
        self._depth_left_out = 0  # of the outermost element that is left out
        self.left_out = ""  # its kind

    def start(self, name: str) -> None:
        """Opens an element. What does not belong into the head ends it, as its end may be missing."""
        if name in html_pages.VOID_ELEMENTS:
            return
        if self._names and self._names[-1] == "head" and name not in _HTML_OF_HEAD:
            self.end("head")
        self._names.append(name)
        self._counts[name] = self._counts.get(name, 0) + 1
        if not self.left_out and name in _HTML_KINDS:
            self.left_out, self._depth_left_out = _HTML_KINDS[name], len(self._names)

    def end(self, name: str) -> Optional[bool]:
        """Closes an element with all in it; returns whether it is a block, None for an end without a start."""
        if not self._counts.get(name):
            return None
        while (closed := self._names.pop()) != name:
            self._counts[closed] -= 1
        self._counts[name] -= 1
        if len(self._names) < self._depth_left_out:
            self.left_out, self._depth_left_out = "", 0
        return name in _HTML_BLOCKS


# Form of a file (reading.py) -> what parses the whole text of one into paragraphs, and counts what it leaves out.
MARKUP_PARSERS: dict[str, Callable[[str, Account], Iterator[str]]] = {
    "markdown": markdown_paragraphs,
    "html": html_paragraphs,
}


def _kept_paragraph(parts: list[str], is_item: bool, account: Account) -> Iterator[str]:
    text = " ".join("".join(parts).split())
    if _is_prose(text):
        yield text
    elif text:
        account.leave_out_block("list items" if is_item else "headings and fragments", count_characters(text))


def _is_prose(text: str) -> bool:
    """Whether a text is mostly letters, long enough for a sentence, and holds the end of one."""
    dense = text.replace(" ", "")
    is_long = len(text.split()) >= _MIN_WORDS or sum(map(_is_wide, text)) >= _MIN_CHARS
    return is_long and _num_letters(dense) >= _MIN_LETTER_SHARE * len(dense) and bool(_SENTENCE_END.search(text))


def _is_wide(char: str) -> bool:
    """Whether the character is of a script that writes words without spaces between them."""
    return unicodedata.east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"  # Korean has spaces


def _num_letters(text: str) -> int:
    """Letters and combining marks; those of ASCII are counted as bytes, which is ten times as fast."""
    num_ascii = len(text.encode("ascii", "ignore").translate(None, _ASCII_OTHERS))
    if text.isascii():
        return num_ascii
    beyond = _ASCII.sub("", text)
    return num_ascii + sum(char.isalpha() or unicodedata.category(char)[0] == "M" for char in beyond)


def check_splitter() -> None:
    """ValueError where sentencex is not installed."""
    if importlib.util.find_spec("sentencex") is None:
        raise ValueError("--make_text needs sentencex, which is not installed; run: bash init_tf.sh --data")


@functools.lru_cache(maxsize=1)
def sentence_rules(language: str) -> str:
    """The code of the language whose rules sentencex uses for a language; `language` is one of find_language's."""
    found = find_language(language)
    assert found, language
    is_old = metadata.version("sentencex").startswith("0.")  # the last one for Python 3.8 and 3.9
    return _RULES_BEFORE_1.get(found.rules, found.rules) if is_old else found.rules


def sentences_of_paragraph(text: str, language: str) -> list[str]:
    """The sentences of a paragraph that hold a letter; `language` is a code that find_language knows."""
    return [sentence for sentence in _all_sentences(text, language) if any(map(str.isalpha, sentence))]


def _all_sentences(text: str, language: str) -> list[str]:
    import sentencex  # of the data extra

    rules = sentence_rules(language)
    if rules == "el":
        text = text.replace(_GREEK_QUESTION_MARK, ";")
    segment = sentencex.segment  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module without types
    found = (part for piece in _bounded_pieces(text) for part in segment(rules, piece))
    return [stripped for part in found if (stripped := part.strip())]


def _bounded_pieces(text: str) -> Iterator[str]:
    """Pieces of a long paragraph, because sentencex takes quadratic time; cut where a sentence surely ends, if any."""
    start = 0
    while len(text) - start > _MAX_PARAGRAPH:
        end = start + _MAX_PARAGRAPH
        places = (match.end() for pattern in _ENDS for match in deque(pattern.finditer(text, start + 1, end), maxlen=1))
        cut = next(places, end)
        yield text[start:cut]
        start = cut
    yield text[start:]


def sentences_of_article(
    lines: Iterable[str], language: str, is_mlperf: bool = False, account: Optional[Account] = None
) -> list[str]:
    """The sentences of an article with a paragraph a line, without headings and remains of wiki markup.

    is_mlperf: English text stays as MLPerf's pipeline has always had it, with sentences that hold no letter. account
    gets what is left out.
    """
    account = account or Account()
    found: list[str] = []
    for line in lines:
        clean = clean_paragraph(line)
        account.leave_out("markup", count_characters(line) - count_characters(clean))
        sentences: list[str] = []
        # A shorter line is a heading, or the rest of a list or a table.
        if len(clean.split()) >= _MIN_WORDS:
            sentences = _all_sentences(clean, language) if is_mlperf else sentences_of_paragraph(clean, language)
            account.leave_out_difference("sentences without a letter", clean, sentences)
        # Some scripts have no spaces between words.
        elif not (is_mlperf and language == "en") and sum(map(_is_wide, clean)) >= _MIN_CHARS:
            sentences = sentences_of_paragraph(clean, language)
            account.leave_out_difference("sentences without a letter", clean, sentences)
        elif clean:
            account.leave_out_block("headings and fragments", count_characters(clean))
        found += sentences
    return found


def without_tags(line: str) -> str:
    """A line of HTML or of WikiExtractor without its tags."""
    return _ANY_TAG.sub(" ", line)


def clean_paragraph(text: str) -> str:
    """Text without entities, placeholders, markup, empty brackets and runs of space."""
    text = _WIKI_MARKUP.sub("", html_pages.unescape(text))
    text = _EMPTY_BRACKETS.sub("", _PLACEHOLDER.sub("", text))
    return _SPACE_BEFORE_STOP.sub(r"\1", " ".join(text.split()))
