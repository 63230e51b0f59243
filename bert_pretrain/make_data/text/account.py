"""What became of all text that was read: what was kept, and what was left out, by reason.

Characters are those that are no white space, so that joining and dividing lines changes no number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional


def count_characters(text: str) -> int:
    """The characters of a text that are no white space."""
    if text.isprintable():  # the only white space that is printable is a space
        return len(text) - text.count(" ")
    return sum(map(len, text.split()))


class Records(NamedTuple):
    """The records (JSON lines, rows) of a file or a piece of one."""

    number: int
    num_bad: int
    first_bad: str  # what is wrong with the first bad one, and where; nothing where none is bad

    def plus(self, other: Records) -> Records:
        """The records of two pieces."""
        return Records(self.number + other.number, self.num_bad + other.num_bad, self.first_bad or other.first_bad)


class Account:
    """Documents and characters that were read; each was kept or is left out for a reason.

    A document that is cut, as it is too long, is as many documents.
    """

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()  # documents, characters
        self.kept: Counter[str] = Counter()
        self.left_out: dict[str, Counter[str]] = {}  # by reason
        self.counts: Counter[str] = Counter()  # what else was found: files of a kind, blocks that are left out
        self.notes: list[str] = []  # about single files, for the user
        self.records: dict[str, Records] = {}  # of each file that was cut into pieces, by its path

    def add_read(self, documents: int = 0, characters: int = 0) -> None:
        """Counts what was read."""
        self.read.update(documents=documents, characters=characters)

    def keep(self, document: Iterable[str]) -> None:
        """Counts a document, given as its sentences."""
        self.kept.update(documents=1, characters=sum(map(count_characters, document)))

    def leave_out(self, reason: str, characters: int, documents: int = 0) -> None:
        """Counts what was left out."""
        if characters or documents:
            self.left_out.setdefault(reason, Counter()).update(documents=documents, characters=characters)

    def leave_out_block(self, kind: str, characters: int) -> None:
        """Counts a part of a document, such as a table, and its characters."""
        self.counts[kind] += 1
        self.leave_out(kind, characters)

    def leave_out_difference(self, reason: str, before: str, kept: Iterable[str]) -> None:
        """Counts the characters of a text that are not in what is kept of it."""
        self.leave_out(reason, count_characters(before) - sum(map(count_characters, kept)))

    def keep_less(self, documents: int, characters: int) -> None:
        """Takes back what was kept, as it is left out by a later step."""
        self.kept.update(documents=-documents, characters=-characters)

    def left_out_characters(self) -> int:
        """All characters that were left out."""
        return sum(amount["characters"] for amount in self.left_out.values())

    def as_json(self) -> dict[str, Any]:
        """All of it in the form that add_json reads."""
        none = {"documents": 0, "characters": 0}
        return {
            "read": {**none, **self.read},
            "kept": {**none, **self.kept},
            "left_out": {reason: dict(amount) for reason, amount in self.left_out.items()},
            "counts": dict(self.counts),
            "notes": self.notes,
            "records": {path: list(records) for path, records in self.records.items()},
        }

    def amounts(self) -> dict[str, Any]:
        """read, kept and left_out, by reason, as documents and characters."""
        content = self.as_json()
        return {name: content[name] for name in ("read", "kept", "left_out")}

    def add_json(self, content: Mapping[str, Any]) -> None:
        """Adds what as_json or amounts returned."""
        self.read.update(content.get("read", {}))
        self.kept.update(content.get("kept", {}))
        for reason, amount in content.get("left_out", {}).items():
            self.left_out.setdefault(reason, Counter()).update(amount)
        self.counts.update(content.get("counts", {}))
        self.notes += content.get("notes", [])
        for path, records in content.get("records", {}).items():
            self.add_records(path, Records(*records))

    def add_records(self, path: str, records: Records) -> None:
        """Adds the records of a piece of a file."""
        self.records[path] = self.records[path].plus(records) if path in self.records else records

    def describe(self) -> str:
        """What was read, kept and left out, in one line."""
        most = sorted(self.left_out.items(), key=lambda item: -item[1]["characters"])
        left_out = "; ".join(f"{_describe_amount(amount)}: {reason}" for reason, amount in most) or "nothing"
        return f"read: {_describe_amount(self.read)}; kept: {_describe_amount(self.kept)}; left out: {left_out}"

    def check(self) -> Optional[str]:
        """What does not add up, or None."""
        for unit in ("documents", "characters"):
            left_out = sum(amount[unit] for amount in self.left_out.values())
            if self.read[unit] != self.kept[unit] + left_out:
                return f"{self.read[unit]} {unit} read, {self.kept[unit]} kept and {left_out} left out"
        return None


def _describe_amount(amount: Mapping[str, int]) -> str:
    documents = [f"{amount['documents']:,} documents"] if amount["documents"] else []
    return ", ".join([*documents, f"{amount['characters']:,} characters"])
