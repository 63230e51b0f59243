"""A Wikipedia dump: its language, and its articles by WikiExtractor, with an account of all of its pages.

python -m bert_pretrain.make_data.text.wikipedia_dump DUMP FOLDER PROCESSES writes the articles as JSON lines to FOLDER,
and what became of the pages to FOLDER/pages.json.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Optional

from bert_pretrain.make_data.text import reading
from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.system.files import write_json

SUFFIXES = (".xml", ".xml.bz2", ".xml.gz")
ACCOUNT_FILE = "pages.json"
_MAX_SITEINFO = 2_000  # lines
_LANGUAGE = re.compile(r"""<mediawiki[^<>]*\bxml:lang=["']([^"'<>]+)["']""")
_DATABASE = re.compile(r"<dbname>\s*([a-z_]{2,20})wik[a-z]+\s*</dbname>")

# WikiExtractor takes quadratic time where marks are opened and not closed; articles have a few of them at most.
_MAX_PAGE = 16 << 20  # characters
_MAX_OPEN = 500
_BRACKETS = (("&lt;!--", "--&gt;"), ("&lt;", "&gt;"), ("[", "]"), ("{", "}"))
_ELEMENT = re.compile(r"&lt;(/?)([a-zA-Z]{1,20})\b([^&]{0,200})")
_WITHOUT_END = frozenset("br hr li p dd dt td th tr wbr img center".split())


def find_dump_language(path: str) -> Optional[str]:
    """The code of a dump's language in its siteinfo; None where it has none. ValueError where it cannot be read."""
    compression = os.path.splitext(path)[1]
    source = reading.TextSource(path, "text", "" if compression == ".xml" else compression, os.path.getsize(path))
    head = "\n".join(itertools.islice(reading.decoded_lines(source, "utf-8"), _MAX_SITEINFO)).partition("</siteinfo>")[
        0
    ]
    found = _LANGUAGE.search(head) or _DATABASE.search(head)
    return found[1].replace("_", "-") if found else None


class _Pages:
    """Counts the pages of a dump as WikiExtractor reads its lines, and keeps from it what would stall it."""

    def __init__(self) -> None:
        self.account = Account()
        self.is_complete = False

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines, which are counted."""
        num_chars, reason, is_text = 0, "", False
        for line in lines:
            yield line
            if not is_text:
                tag = line.lstrip()
                if tag.startswith("<page>"):
                    num_chars, reason = 0, ""
                elif tag.startswith("<ns>") and not tag.startswith("<ns>0<"):
                    reason = reason or "pages that are no articles"
                elif tag.startswith("<redirect"):
                    reason = reason or "redirects"
                elif tag.startswith("</page>"):
                    self.account.add_read(1, num_chars)
                    if reason:
                        self.account.leave_out(reason, num_chars, 1)
                elif tag.startswith("</mediawiki>"):
                    self.is_complete = True
                elif tag.startswith("<text"):
                    opening, _, line = tag.partition(">")
                    is_text = not opening.endswith("/")
            if is_text:
                content, end, _ = line.partition("</text>")
                num_chars += count_characters(content)
                is_text = not end

    def articles(self, pages: Iterable[tuple[str, str, str, list[str]]]) -> Iterator[tuple[str, str, str, list[str]]]:
        """The articles that WikiExtractor can work on: id, revision, title and lines."""
        for page in pages:
            num_chars = sum(map(count_characters, page[3]))
            reason = _find_fault("".join(page[3]))
            if reason:
                self.account.leave_out(f"articles with {reason}", num_chars, 1)
                self.account.notes.append(f"article {page[2]}: {reason}, left out")
            else:
                self.account.kept.update(documents=1, characters=num_chars)
                yield page


def _find_fault(text: str) -> str:
    """Why an article, with the entities of XML, is not given to WikiExtractor; nothing where it is."""
    if len(text) > _MAX_PAGE:
        return f"more than {_MAX_PAGE >> 20} million characters"
    is_open = any(text.count(opening) - text.count(closing) > _MAX_OPEN for opening, closing in _BRACKETS)
    if not is_open and text.count("&lt;") > _MAX_OPEN:
        num_open: dict[str, int] = {}
        for match in _ELEMENT.finditer(text):
            name = match[2].lower()
            if not match[3].rstrip().endswith("/") and name not in _WITHOUT_END:
                num_open[name] = num_open.get(name, 0) + (-1 if match[1] else 1)
        is_open = any(number > _MAX_OPEN for number in num_open.values())
    return f"more than {_MAX_OPEN} marks that are not closed" if is_open else ""


def extract_articles(dump: str, folder: str, num_processes: int) -> list[str]:
    """Runs WikiExtractor; returns lines for the user. ValueError where the dump is cut short or cannot be read."""
    if importlib.util.find_spec("wikiextractor") is None:
        raise ValueError("a dump needs wikiextractor, which is not installed; run: bash init_tf.sh --data")
    from wikiextractor import WikiExtractor  # of the data extra

    extractor: Any = WikiExtractor
    collect, pages = extractor.collect_pages, _Pages()
    extractor.collect_pages = lambda lines: pages.articles(collect(pages.lines(lines)))
    sys.argv[1:] = [dump, "--output", folder, "--json", "--bytes", "30M", "--processes", str(num_processes)]
    try:
        extractor.main()
    except (OSError, EOFError) as error:
        raise ValueError(f"{dump}: cannot be read ({error}); download it again") from None
    account = pages.account
    if not pages.is_complete:
        raise ValueError(
            f"{dump}: ends after {account.read['documents']} pages without </mediawiki>; download it again"
        )
    for unit in ("documents", "characters"):  # such as an article's second revision
        left_out = sum(amount[unit] for amount in account.left_out.values())
        rest = account.read[unit] - account.kept[unit] - left_out
        account.leave_out("pages that WikiExtractor passes over", **{"characters": 0, "documents": 0, unit: rest})
    num_written = sum(_count_lines(os.path.join(root, name)) for root, _, names in os.walk(folder) for name in names)
    content = {**account.as_json(), "written_articles": num_written}
    write_json(os.path.join(folder, ACCOUNT_FILE), content)
    lines = [f"{dump}: {account.describe()}", *account.notes]
    if num_written != account.kept["documents"]:
        lines.append(f"{dump}: WikiExtractor wrote {num_written:,} articles only, see its lines above")
    return lines


def _count_lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


if __name__ == "__main__":
    try:
        print("\n".join(extract_articles(sys.argv[1], sys.argv[2], int(sys.argv[3]))), file=sys.stderr)
    except ValueError as fault:
        sys.exit(f"error: {fault}")
