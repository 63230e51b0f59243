"""HTML as a stream: what hostile pages and texts cost, and what unusual tags mean."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bert_pretrain.make_data.text import prose
from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.make_data.text.html_pages import END, START, TEXT, read_page

HOSTILE_HTML = [
    "<!--", "<a ", "<a", "<![CDATA[", "</", "</a", "<p>", "<div>", "<ul><li>", "<b><p>", "</p>", "<a x='", '<a ">',
    '<a =">" ', "<a =", "&", "&a", "&#1", "&amp", "<?", "<!", "<", "<x", "<script>", "<script><!--", "<table><tr>",
    "<svg>", "<!-->", "<!--->", "--!>", "]]>", "<nav><p>", "<textarea>", "x ", "\0", "<p/>", "<head>", "<a ' =\"",
    "<style></style ",
]  # fmt: skip
HOSTILE_TEXT = [
    "-", "=", "+", "- ", "--- ", "| ", "+-", "<a ", "<x `", "` <", "`", "``", "``a ", " *a", "*a ", "**a ", ":a:",
    ":a:`<", " <x", "[#", "[1", "(", "( ,", "'", "''", ". ", ".'", "。", ";", "{ ", "&#9", "&", "formula_", "a(", ": ",
    "#", "1.", "\t",
]  # fmt: skip


def pages(unit: str, size: int) -> str:
    return unit * (size // len(unit))


def seconds(parse: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    parse(text)
    return time.process_time() - start


def parse_html(text: str) -> None:
    list(prose.html_paragraphs(text, Account()))


def parse_rst(text: str) -> None:
    list(prose.plain_paragraphs(text.split("\n"), True, True, Account()))


def parse_text(text: str) -> None:
    list(prose.plain_paragraphs(text.split("\n"), False, True, Account()))
    prose.find_layout(text.split("\n"))
    prose.clean_paragraph(text)


@pytest.mark.parametrize(
    "tail",
    ["\nx", *(pytest.param(tail, marks=pytest.mark.slow) for tail in ("", ">", "</b>" * 9_000))],
    ids=["line", "nothing", "end", "ends"],
)
@pytest.mark.parametrize(
    ("parse", "units"),
    [(parse_html, HOSTILE_HTML), (parse_rst, HOSTILE_TEXT), (parse_text, HOSTILE_TEXT)],
    ids=["html", "rst", "text"],
)
def test_twice_the_hostile_text_is_about_twice_the_work(
    parse: Callable[[str], object], units: list[str], tail: str
) -> None:
    for unit in units:
        first = seconds(parse, pages(unit, 20_000) + tail)
        second = seconds(parse, pages(unit, 40_000) + tail)
        assert second < 3 * first + 0.1, (unit, tail[:4], first, second)


def test_twice_the_hostile_paragraph_is_about_twice_the_sentences() -> None:
    pytest.importorskip("sentencex")
    for unit in ("<!--", "``", "「。", "。」", "``a", "“", "a. ", ". "):
        first, second = (
            seconds(lambda text: prose.sentences_of_paragraph(text, "en"), pages(unit, size))
            for size in (20_000, 40_000)
        )
        assert second < 3 * first + 0.1, (unit, first, second)


def test_a_long_paragraph_has_the_sentences_of_its_parts() -> None:
    pytest.importorskip("sentencex")
    sentences = [f"This is the sentence of number {number}." for number in range(2_000)]
    assert prose.sentences_of_paragraph(" ".join(sentences), "en") == sentences
    ideographs = ["今日は天気がいいです。"] * 3_000
    assert prose.sentences_of_paragraph("".join(ideographs), "ja") == ideographs


@pytest.mark.parametrize(
    ("page", "events"),
    [
        ("<P Class='a>b' x=\"<\">t</p >", [(START, "p"), (TEXT, "t"), (END, "p")]),
        ("a < b <3 &lt;&#65;&amp;", [(TEXT, "a < b <3 <A&")]),
        ("<br/><p/>x", [(START, "br"), (END, "br"), (START, "p"), (END, "p"), (TEXT, "x")]),
        ("<a href=x/>y", [(START, "a"), (TEXT, "y")]),
        (
            "<script>if (a<b) '</p>'</SCRIPT>x",
            [(START, "script"), (TEXT, "if (a<b) '</p>'"), (END, "script"), (TEXT, "x")],
        ),
        ("x<a href='y", [(TEXT, "x<a href='y")]),
    ],
)
def test_events(page: str, events: list[tuple[str, str]]) -> None:
    assert list(read_page(page)) == events


def test_a_head_without_an_end_hides_no_text() -> None:
    account = Account()
    page = "<html><head><title>T</title><body><p>It is here and is read.</p>"
    assert list(prose.html_paragraphs(page, account)) == ["It is here and is read."]
    assert account.left_out_characters() == count_characters(page) - count_characters("It is here and is read.")


PAGES = [
    "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>T</title><style>p>a{}</style></head>"
    "<body class='a>b'><header><p>Site name of it.</header><nav><ul><li><a href=/x>Home</a></ul></nav><main>"
    "<h1>On cats</h1><p>A <b>cat</b> sat on the mat &amp; slept.<br/>It woke&nbsp;up.</p><p>No end of this paragraph."
    "<p>And the next <em>one follows</em> here.<ul><li>An item that is a sentence.<li>Short<ul><li>A nested item, too."
    "</ul></ul><table><tr><td>1<td>2</table><pre>x = 1</pre>Text after a block.<div>Inner text is here.<img src='a'>"
    "</div><script>document.write('<p>no</p>')</script><blockquote>A quotation, which ends here!</blockquote>"
    "</main><footer>By us.</footer><!-- <p>nothing</p> --></body></html>",
    "<div>One is <i>in <b>this</i> text</b> here.</p></span><section/>Two is there, &lt;b&gt; and &#233;.</div>&copy;",
    "<p>a<![CDATA[ <p>x</p> ]]> b c.</p><?php echo '<p>' ?><p>漢字<ruby>今日<rt>きょう</rt></ruby>は天気がいい。",
]


@pytest.mark.parametrize("page", PAGES, ids=["page", "wrong nesting", "other"])
def test_tags_and_text_are_those_of_beautifulsoup(page: str) -> None:
    soup = pytest.importorskip("bs4").BeautifulSoup(page, "html.parser")
    kinds = ("NavigableString", "RubyTextString", "Script", "Stylesheet")
    texts = "".join(str(node) for node in soup.descendants if type(node).__name__ in kinds)
    assert "".join(text for event, text in read_page(page) if event == TEXT).split() == texts.split()
    names = [node.name for node in soup.descendants if getattr(node, "name", None)]
    assert names == [name for event, name in read_page(page) if event == START]
