"""Prose out of Markdown and HTML: paragraphs, without headings, lists of fragments, tables and code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bert_pretrain.make_data.raw_text.decoding import need
from bert_pretrain.make_data.raw_text.prose import is_prose

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_MARKDOWN_KINDS = {
    "heading_open": "headings", "fence": "code", "code_block": "code", "table_open": "tables", "html_block": "markup",
}  # fmt: skip
_HTML_KINDS = {
    "script": "markup", "style": "markup", "noscript": "markup", "template": "markup", "svg": "markup",
    "math": "markup", "head": "markup", "nav": "navigation", "header": "navigation", "footer": "navigation",
    "aside": "navigation", "form": "navigation", "pre": "code", "table": "tables", "figure": "tables",
    **{f"h{level}": "headings" for level in range(1, 7)},
}  # fmt: skip
_HTML_BLOCKS = {
    "address", "article", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "html", "li", "main", "ol", "p",
    "section", "ul",
}  # fmt: skip


def markdown_paragraphs(text: str, left_out: Counter) -> Iterator[str]:
    """The paragraphs of a Markdown file, each in one line."""
    parser = need("markdown_it", "a Markdown file").MarkdownIt("commonmark").enable("table")
    within: list[str] = []  # headings and tables that are open
    depth_of_lists = 0
    for token in parser.parse(_FRONT_MATTER.sub("", text)):
        if token.type in _MARKDOWN_KINDS:
            left_out[_MARKDOWN_KINDS[token.type]] += 1
        if token.type in ("heading_open", "table_open"):
            within.append(token.type)
        elif token.type in ("heading_close", "table_close"):
            within.pop()
        depth_of_lists += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type == "inline" and not within:
            yield from _kept(_inline_text(token), depth_of_lists > 0, left_out)


def _inline_text(token: object) -> str:
    parts = [
        child.content if child.type in ("text", "code_inline") else " " * (child.type in ("softbreak", "hardbreak"))
        for child in token.children
    ]
    return " ".join("".join(parts).split())


def html_paragraphs(text: str, left_out: Counter) -> Iterator[str]:
    """The paragraphs of a page, each in one line: the text of the innermost blocks."""
    page = need("bs4", "an HTML file").BeautifulSoup(text, "html.parser")
    for element in page.find_all(list(_HTML_KINDS)):
        if not element.decomposed:
            left_out[_HTML_KINDS[element.name]] += 1
            element.decompose()
    parts: list[str] = []
    is_item = False
    for node in page.descendants:
        name = getattr(node, "name", None)
        if name in _HTML_BLOCKS or name == "br":
            if name != "br":
                yield from _kept(" ".join("".join(parts).split()), is_item, left_out)
                parts, is_item = [], name in ("li", "dd", "dt")
            else:
                parts.append(" ")
        elif name is None and type(node).__name__ == "NavigableString":
            if _ends_block(node):
                yield from _kept(" ".join("".join(parts).split()), is_item, left_out)
                parts, is_item = [], False
            parts.append(str(node))
    yield from _kept(" ".join("".join(parts).split()), is_item, left_out)


def _ends_block(node: object) -> bool:
    """Whether the text follows a block within the same parent."""
    previous = node.previous_sibling
    return getattr(previous, "name", None) in _HTML_BLOCKS


def _kept(text: str, is_item: bool, left_out: Counter) -> Iterator[str]:
    if is_prose(text):
        yield text
    elif text:
        left_out["list items" if is_item else "headings and fragments"] += 1
