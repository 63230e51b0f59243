"""Text on disk as documents: one sentence a line, a blank line between documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def read_documents(path: str) -> Iterator[list[str]]:
    """The documents of a text file, each a list of non-empty lines. ValueError names the file and line at fault."""
    document: list[str] = []
    for line in read_lines(path):
        if line:
            document.append(line)
        elif document:
            yield document
            document = []
    if document:
        yield document


def read_lines(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file without white space at their ends. ValueError names the file and line at fault."""
    try:
        with open(path, "rb") as file:  # in bytes, where only \n ends a line
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}: line {number} is not UTF-8 ({error.reason} at its byte {error.start}); "
                        f"convert the file, for example with iconv -f latin1 -t utf-8"
                    ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def write_documents(path: str, documents: Iterable[list[str]]) -> None:
    """Writes documents as `read_documents` reads them."""
    with open(path, "w", encoding="utf-8") as file:
        for document in documents:
            file.write("\n".join(document) + "\n\n")
