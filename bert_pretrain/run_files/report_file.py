"""Files that report on a run: how they are written, and how a JSON file of them is read.

No disk, however full, stops the training through them. What cannot be written is kept in memory and written later, with
the next record. A file is opened for each write: a network file system reports a full disk at close, and a file that
was moved away begins anew.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
from typing import Any, Callable, Optional

from bert_pretrain.storage import remote
from bert_pretrain.system.console import log
from bert_pretrain.system.files import atomic_write, open_itself, write_json


class _ReportFile(abc.ABC):
    """Warns at the first failure, tells once that the file is complete again, and counts what is lost at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._failure: Optional[str] = None  # of the newest attempt
        self._has_warned = self._has_told = False

    def flush(self) -> None:
        """Writes what is still to be written, as far as the disk allows."""
        try:
            self._write()
        except OSError as error:
            self._failure = error.strerror
            if not self._has_warned:
                log.warning(
                    f"warning: {self.path} cannot be written: {error.strerror}; the run goes on, and what is missing "
                    f"there is kept in memory and written later"
                )
            self._has_warned = True
        else:
            if self._failure and not self._has_told:
                log.warning(f"{self.path} can be written again; nothing is missing")
                self._has_told = True
            self._failure = None

    def close(self) -> None:
        """The last attempt to write; says what is lost."""
        self.flush()
        if self._failure:
            log.warning(f"error: {self.path} cannot be written: {self._failure}; {self._lost()} missing there")

    @abc.abstractmethod
    def _write(self) -> None:
        """Writes what is still to be written. OSError where that fails."""

    @abc.abstractmethod
    def _lost(self) -> str:
        """What is still to be written, with its verb."""


class AppendedFile(_ReportFile):
    """A file that grows by whole records."""

    def __init__(self, path: str, is_own: bool = True) -> None:
        """is_own=False: the user has named the path, which may be a link, a pipe or a device."""
        super().__init__(path)
        self._open: Callable[[str, int], int] = open_itself if is_own else _open_any
        self._pending: list[bytes] = []
        self._begin: Optional[int] = None  # size of the file before an attempt that has not succeeded

    def append(self, record: bytes) -> None:
        """Adds a record, which is written at once or later."""
        self._pending.append(record)
        self.flush()

    def keep_lines(self, keep: Callable[[bytes], bool]) -> None:
        """Removes the lines for which keep is False, and an incomplete last line, of a file that exists."""
        if not os.path.isfile(self.path):  # a device or a pipe has no past
            return
        try:
            with open(self.path, "rb", opener=self._open) as file:
                lines = file.read().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and keep(line)]
            if len(kept) < len(lines):
                self._replace(lines, kept)
        except OSError as error:
            log.warning(f"warning: {self.path} cannot be cleared of repeated records: {error.strerror}")

    def _replace(self, lines: list[bytes], kept: list[bytes]) -> None:
        """Cuts the file where only its end is removed, which needs no space; else writes it anew."""
        num_same = next((number for number, line in enumerate(kept) if line is not lines[number]), len(kept))
        if num_same < len(kept):
            with contextlib.suppress(OSError), atomic_write(self.path, "wb") as file:
                file.writelines(kept)
                return
        os.truncate(self.path, sum(map(len, kept[:num_same])))
        self._pending = kept[num_same:]

    def _write(self) -> None:
        if not self._pending:
            return
        descriptor = self._open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        num_written = 0
        try:
            size = os.fstat(descriptor).st_size
            end = size if self._begin is None else min(size, self._begin)
            if end < size:
                os.ftruncate(descriptor, end)
            self._begin = end
            for record in self._pending:
                _write_whole(descriptor, record, end)
                num_written, end = num_written + 1, end + len(record)
        finally:
            os.close(descriptor)  # if this fails, everything since _begin is written again
            self._begin = None
            del self._pending[:num_written]

    def _lost(self) -> str:
        return f"{len(self._pending)} records are"


def _open_any(path: str, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _write_whole(descriptor: int, record: bytes, size: int) -> None:
    """Appends a record to a file of `size` bytes, or nothing."""
    rest = memoryview(record)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


class JsonFile(_ReportFile):
    """A JSON file that is replaced as a whole."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._content: Optional[dict[str, Any]] = None  # still to be written

    def replace(self, content: dict[str, Any]) -> None:
        """The file's new content, which is written at once or later."""
        self._content = content
        self.flush()

    def _write(self) -> None:
        if self._content is not None:
            write_json(self.path, self._content, indent=2)
            self._content = None

    def _lost(self) -> str:
        return f"{json.dumps(self._content)} is"


class UnreadableFileError(ValueError):
    """A file of a run has no content; the text goes on after the name of the file: "is missing".

    The cause is what open() or the JSON parser raised; there is none where the JSON is no object.
    """


def read_json_object(path: str) -> dict[str, Any]:
    """The content of a JSON file of a run, which may be a URL. UnreadableFileError where there is none."""
    try:
        content = json.loads(remote.read_path_or_url(path))
    except FileNotFoundError as error:
        raise UnreadableFileError("is missing") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError("is damaged: no JSON") from error
    if not isinstance(content, dict):
        raise UnreadableFileError("is no JSON object")
    return content
