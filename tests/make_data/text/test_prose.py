"""Paragraphs out of plain text, reStructuredText, Markdown and HTML; sentences of five languages."""

from __future__ import annotations

import importlib.util
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.make_data.text import prose
from bert_pretrain.make_data.text.account import Account

PLAIN = """
Installation
============

   This program reads files and writes them to another place. It was written for
machines with little memory, and its well-
known limits are listed below.

 * The first point is a whole sentence, which goes
   on in a second line. It has two.
 * short item
 2) Another whole sentence stands here as well.

>>> import this
>>> print(this)

    for (i = 0; i < n; i++) {
        sum += x[i];
    }

name      size     kind
alpha     1        file
beta      2        folder

# A comment of several lines says something about
# the code that follows, and it ends here.

J. Random Hacker <jrh@example.org>

He said: "It works." Then he went home and slept for a week.
"""

RST = """
.. _target:

Using it
--------

Call :func:`~os.path.join` with ``a`` and *two* parts, as `the page <https://x.org>`_ says [1]_. Then do this::

    this.is(code)

    More of the literal block, which looks like a sentence.

.. note::

   Notes are prose as well and stay where they are.

.. code-block:: python

   print("never")

:param x: what x is and why it matters so much.

The last paragraph stands here without any marks.
"""

MARKDOWN = """---
title: front matter is left out of the text.
---
# A heading that looks like a sentence.

Some *emphasised* text with `code` and a [link](https://x.org)
that goes on in the next line.

- fragment
- A list item that is a whole sentence is kept here.

| a | b |
|---|---|
| A cell which is long enough to be a sentence. | c |

```
code = "which is left out of the text."
```
"""

HTML = """<html><head><title>T.</title><style>p { color: red. }</style></head><body>
<nav><p>Home and other pages are listed in this place.</p></nav>
<h1>A heading that looks like a sentence.</h1>
<p>Tom &amp; Jerry ran <b>very</b> fast<br>over the hill. They slept.</p>
<ul><li>fragment</li><li>A list item that is a whole sentence.</li></ul>
<div>Loose text within a block is a paragraph as well.<p>And another one follows right here.</p> tail</div>
<table><tr><td>A cell which is long enough to be a sentence.</td></tr></table><pre>code is left out of it.</pre>
<script>var x = "a sentence in a script.";</script></body></html>"""


def paragraphs(text: str, is_rst: bool = False, is_wrapped: bool = True) -> tuple[list[str], Account]:
    account = Account()
    return list(prose.plain_paragraphs(text.split("\n"), is_rst, is_wrapped, account)), account


def test_plain_text() -> None:
    found, account = paragraphs(PLAIN)
    assert found == [
        "This program reads files and writes them to another place. It was written for machines with little memory, "
        "and its well-known limits are listed below.",
        "The first point is a whole sentence, which goes on in a second line. It has two.",
        "Another whole sentence stands here as well.",
        "A comment of several lines says something about the code that follows, and it ends here.",
        'He said: "It works." Then he went home and slept for a week.',
    ]
    assert account.counts == {"headings": 1, "list items": 1, "code": 3, "tables": 1}


def test_restructured_text() -> None:
    found, account = paragraphs(RST, is_rst=True)
    assert found == [
        "Call os.path.join with a and two parts, as the page says. Then do this:",
        "Notes are prose as well and stay where they are.",
        "The last paragraph stands here without any marks.",
    ]
    assert [account.counts[kind] for kind in ("code", "headings", "directives and comments")] == [2, 1, 4]


def test_lines_of_ideographs_are_joined_without_a_space() -> None:
    assert (
        prose.join_lines(["今日は天気が", "いいです。", "Then English", "goes on."])
        == "今日は天気がいいです。 Then English goes on."
    )
    assert paragraphs("今日は天気がいいので、友達と一緒に公園へ行きました。")[0]


def test_markdown() -> None:
    pytest.importorskip("markdown_it")
    account = Account()
    assert list(prose.markdown_paragraphs(MARKDOWN, account)) == [
        "Some emphasised text with code and a link that goes on in the next line.",
        "A list item that is a whole sentence is kept here.",
    ]
    assert account.counts == {"headings": 1, "list items": 1, "tables": 1, "code": 1}


def test_html() -> None:
    pytest.importorskip("bs4")
    account = Account()
    assert list(prose.html_paragraphs(HTML, account)) == [
        "Tom & Jerry ran very fast over the hill. They slept.",
        "A list item that is a whole sentence.",
        "Loose text within a block is a paragraph as well.",
        "And another one follows right here.",
    ]
    assert [account.counts[kind] for kind in ("navigation", "headings", "tables", "code")] == [1] * 4


@pytest.mark.parametrize(
    ("text", "line", "document"),
    [
        ("One is here.\nTwo is here.\n\nThree is there.\nFour is there.", "sentence", "blank_line"),
        ("One is here.\nTwo is here.", "sentence", "file"),
        ("A b c. D e f. " * 30 + "\n\n" + "G h i. J k l. " * 30, "paragraph", "file"),
        (("A b c. D e f. " * 30 + "\n") * 2 + "\n" + ("G h i. J k l. " * 30 + "\n") * 2, "paragraph", "blank_line"),
        (
            "It is wrapped at some\ncolumn of the page, and\nends here.\n\nAnother one is wrapped\nas well.",
            "part",
            "file",
        ),
        ("", "sentence", "file"),
    ],
)
def test_layouts(text: str, line: str, document: str) -> None:
    found = prose.find_layout(text.split("\n"))
    assert (found.line, found.document) == (line, document)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It is  \u00a0far &amp; wide.", "It is far & wide."),
        ("The Foo ( ; , ) is (born 1920) a bar ().", "The Foo is (born 1920) a bar."),
        ("Let formula_1 be a set .", "Let be a set."),
        ("See <br /> '''bold''' [[link]] {{x}}", "See bold link x"),
        ("a < b and c > d", "a < b and c > d"),
    ],
)
def test_remains_of_wiki_markup_are_removed(raw: str, clean: str) -> None:
    assert prose.clean_paragraph(raw) == clean


needs_sentencex = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")


@needs_sentencex
@pytest.mark.parametrize(
    ("language", "found"),
    [
        ("en", ["Dr. Smith arrived in the U.S. in 1999.", "He left – soon after – for Rome!", "Was it 3.5 km?"]),
        ("de", ["Am 3. Oktober kam Prof. Müller z. B. nach Köln.", "Er blieb dort.", "Warum?"]),
        ("fr", ["Le train est arrivé à 10 h 30.", "« Où est-il ? » demanda-t-elle.", "Personne ne savait."]),
        ("ru", ["В 1999 г. он приехал в Москву.", "Там было холодно!", "Почему?"]),
        ("ja", ["今日は天気がいいです。", "公園へ行きました。", "楽しかったですか？"]),
    ],
)
def test_sentences_of_five_languages(language: str, found: list[str]) -> None:
    space = "" if language == "ja" else " "
    assert prose.sentences_of_paragraph(space.join(found), language) == found


@needs_sentencex
def test_both_forms_of_the_greek_question_mark_end_a_sentence() -> None:
    found = prose.sentences_of_paragraph("Ποιος ήρθε\u037e Η Μαρία. Τι είναι αυτό; Ένα βιβλίο.", "el")
    assert found == ["Ποιος ήρθε;", "Η Μαρία.", "Τι είναι αυτό;", "Ένα βιβλίο."]
    assert prose.sentences_of_paragraph("See this; It is so.", "en") == ["See this; It is so."]


@needs_sentencex
def test_headings_of_articles_are_left_out_in_scripts_with_and_without_spaces() -> None:
    article = ["History.", "", "Dr. Smith arrived in the U.S. in 1999. He left &ndash; soon after.", "See also."]
    assert prose.sentences_of_article(article, "en") == [
        "Dr. Smith arrived in the U.S. in 1999.",
        "He left – soon after.",
    ]
    assert prose.sentences_of_article(["歴史", "今日は天気がいいです。公園へ行きました。"], "ja") == [
        "今日は天気がいいです。",
        "公園へ行きました。",
    ]


@given(
    st.text(st.characters(blacklist_categories=["Cs"]) | st.sampled_from("aZ9 .\u0301\u0915\u093f\u6f22"), max_size=60)
)
def test_letters_are_counted_with_combining_marks(text: str) -> None:
    expected = sum(unicodedata.category(char)[0] in "LM" for char in text)
    assert prose._num_letters(text) == expected


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("See :prop_tgt:`<LANG>_STANDARD` there.", "See <LANG>_STANDARD there."),
        ("See :ref:`the title <label>` there.", "See the title there."),
        ("See :py:class:`~package.Name` there.", "See package.Name there."),
        ("See :func:`open` and :func:`close` there.", "See open and close there."),
    ],
)
def test_roles_leave_their_text(markup: str, text: str) -> None:
    assert prose.without_rst_markup(markup) == text
