"""Source files -> documents of sentences.

Documents come in the order of the file, one at a time; what they contain depends on the file and the settings only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.raw_text.articles import read_articles
from bert_pretrain.make_data.raw_text.sentences import split


def extract(source: str, settings: TextConfig, left_out: Counter) -> Iterator[list[str]]:
    """The documents of a source file, each a list of sentences.

    left_out: gets the number of things that were left out, by kind. ValueError names the file and the place at fault.
    """
    for article in read_articles(source):
        sentences = split(article, settings.language)
        if sentences:
            yield sentences
        else:
            left_out["documents without a sentence"] += 1
