"""HTML as a stream of tags and text, in a time that grows with the length of a page alone, whatever it holds.

Tags have the meaning that Python's html.parser gives them. Parsers that build the tree of the HTML standard need
quadratic time where elements are nested deeply or not closed (docs/decisions.md).
"""

from __future__ import annotations

import html
import re
from collections.abc import Generator, Iterator

START, END, TEXT, OTHER = "start", "end", "text", "other"
# Elements without content and without an end.
VOID_ELEMENTS = frozenset(
    "area base basefont bgsound br col command embed frame hr image img input isindex keygen link menuitem meta nextid "
    "param source spacer track wbr".split()
)
_RAW_ENDS = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
_NAME = re.compile(r"[a-zA-Z][^\s/>\0]*")
_QUOTE_OR_END = re.compile(r"[\"'>]")
_SPACES = " \t\n\r\f"
_UNQUOTED_VALUE = re.compile(r"=\s*[^\s\"'=]*/\Z")
_MAX_TAIL = 200  # characters before the end of a tag that tell whether its last / belongs to a value
_LONG_NUMBER = re.compile(r"&#([xX]?)([0-9a-fA-F]{9,})")
_MAX_DIGITS = 8  # of the number of a character


def unescape(text: str) -> str:
    """Text with characters in place of entities."""
    if "&#" in text:  # Python refuses to convert a number of thousands of digits, or takes quadratic time
        text = _LONG_NUMBER.sub(_bounded_number, text)
    return html.unescape(text) if "&" in text else text


def _bounded_number(match: re.Match[str]) -> str:
    num_digits = len(match[2]) if match[1] else len(match[2]) - len(match[2].lstrip("0123456789"))
    digits, rest = match[2][:num_digits], match[2][num_digits:]
    significant = digits.lstrip("0") or digits[:1]
    return f"&#{match[1]}{significant if len(significant) <= _MAX_DIGITS else '9' * _MAX_DIGITS}{rest}"


def read_page(page: str) -> Iterator[tuple[str, str]]:
    """START and END with an element's name in lower case, and TEXT without entities, in their order.

    OTHER is a comment, a declaration or a processing instruction. A tag that closes itself is START and END.
    """
    return _Reader(page).events()


class _Reader:
    """Reads a page from its beginning to its end. What was searched in vain is never searched again."""

    def __init__(self, page: str) -> None:
        self._page = page
        self._absent: set[str] = set()  # after the place that is read
        self._has_values = True  # a > in quotation marks ends no tag; not where the marks do not match

    def _find(self, mark: str, start: int) -> int:
        if mark in self._absent:
            return -1
        place = self._page.find(mark, start)
        if place < 0:
            self._absent.add(mark)
        return place

    def events(self) -> Iterator[tuple[str, str]]:
        page, place, text_start = self._page, 0, 0
        while (start := page.find("<", place)) >= 0:
            place = start + 1
            following = page[place : place + 1]
            if following.isascii() and following.isalpha():
                if self._find(">", place) < 0:
                    break  # no tag ends, and all that is left is text
                name = _NAME.match(page, place)
                assert name, place
                end = self._end_of_tag(name.end())
                if start > text_start:
                    yield TEXT, unescape(page[text_start:start])
                element = name[0].lower()
                yield START, element
                place = text_start = end
                if self._closes_itself(name.end(), end):
                    yield END, element
                elif element in _RAW_ENDS:
                    place = text_start = yield from self._raw_text(element, end)
            elif following and following in "/!?":
                end = self._end_of_other(start)
                if end < 0:
                    continue  # the < is text
                if start > text_start:
                    yield TEXT, unescape(page[text_start:start])
                if following == "/" and (name := _NAME.match(page, start + 2)):
                    yield END, name[0].lower()
                else:
                    yield OTHER, ""
                place = text_start = end
        if text_start < len(page):
            yield TEXT, unescape(page[text_start:])

    def _end_of_tag(self, place: int) -> int:
        """The place after the tag whose name ends at `place`, which has an end."""
        page = self._page
        first = page.index(">", place)
        if not self._has_values:
            return first + 1
        while mark := _QUOTE_OR_END.search(page, place):
            place = mark.end()
            if mark[0] == ">":
                return place
            before = mark.start() - 1
            while page[before] in _SPACES:
                before -= 1
            if page[before] == "=" and (close := self._find(mark[0], place)) >= 0:
                place = close + 1
        self._has_values = False
        return first + 1

    def _closes_itself(self, name_end: int, end: int) -> bool:
        if self._page[end - 2] != "/":
            return False
        return not _UNQUOTED_VALUE.search(self._page[max(name_end, end - _MAX_TAIL) : end - 1])

    def _end_of_other(self, start: int) -> int:
        """The place after a comment, a declaration or an end tag; -1 where it is none."""
        page = self._page
        if page.startswith("<!--", start):
            if page.startswith((">", "->"), start + 4):
                return page.index(">", start) + 1
            if (end := self._find("-->", start + 4)) >= 0:
                return end + 3
        if page.startswith("<![CDATA[", start) and (end := self._find("]]>", start)) >= 0:
            return end + 3
        if page.startswith("</", start) and page[start + 2 : start + 3] in ("", *_SPACES):
            return -1
        return self._find(">", start) + 1 or -1

    def _raw_text(self, element: str, place: int) -> Generator[tuple[str, str], None, int]:
        """The content of a script, which has no tags; returns the place of its end."""
        mark = None if element in self._absent else _RAW_ENDS[element].search(self._page, place)
        if mark is None:
            self._absent.add(element)
        end = mark.start() if mark else len(self._page)
        if end > place:
            yield TEXT, self._page[place:end]
        return end
