"""Articles of JSON lines, WikiExtractor's files among them, and of plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bert_pretrain.make_data import corpus


def read_articles(path: str) -> Iterator[str]:
    """The articles of a file: JSON lines with "text", or plain text with blank lines between articles.

    A line of an article is a paragraph. ValueError names file and line.
    """
    lines = corpus.read_lines(corpus.whole(path))
    first = next((line for line in lines if line), "")
    everything = corpus.read_lines(corpus.whole(path))
    if first.startswith("{"):
        yield from _json_articles(path, everything)
    else:
        yield from ("\n".join(document) for document in corpus.group(everything))


def _json_articles(path: str, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            article = json.loads(line)["text"]
            article.encode()  # half of a surrogate pair cannot be written
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            article = None
        if article is None:
            raise ValueError(f'{path}: line {number} is not a JSON object with a "text"; each line must be one')
        yield article
