"""Files that report: on a full disk they keep in memory what they write later, in whole records."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bert_pretrain.mlperf import mllog
from bert_pretrain.run_files.report_file import AppendedFile, JsonFile, UnreadableFileError, read_json_object
from tests import small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk.mounted(tmp_path / "disk") as folder:
        yield folder


def line(number: int) -> bytes:
    return f"{number:03d} {'x' * 995}\n".encode()


def test_records_wait_for_space_and_the_user_is_told_once(disk: Path, capsys: pytest.CaptureFixture) -> None:
    file = AppendedFile(str(disk / "log"))
    for number in range(10):
        file.append(line(number))
    filler = small_disk.fill(disk)
    for number in range(10, 40):
        file.append(line(number))
        held = (disk / "log").read_bytes()
        assert held == b"".join(map(line, range(len(held) // 1000))), "part of a record"
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"warning: {disk}/log cannot be written: No space left on device")
    filler.unlink()
    file.append(line(40))
    assert (disk / "log").read_bytes() == b"".join(map(line, range(41)))
    file.close()
    assert capsys.readouterr().err == f"{disk}/log can be written again; nothing is missing\n"


def test_what_is_lost_at_the_end_is_counted(disk: Path, capsys: pytest.CaptureFixture) -> None:
    small_disk.fill(disk)
    log, document = AppendedFile(str(disk / "log")), JsonFile(str(disk / "a.json"))
    log.append(line(0))
    log.append(line(1))
    document.replace({"a": 1})
    log.close()
    document.close()
    said = capsys.readouterr().err.splitlines()
    assert f"error: {disk}/log cannot be written: No space left on device; 2 records are missing there" in said
    assert f'error: {disk}/a.json cannot be written: No space left on device; {{"a": 1}} is missing there' in said
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "log"]


def test_mlperf_s_log_waits_for_space(disk: Path, capsys: pytest.CaptureFixture) -> None:
    handler = mllog._AppendToFile(str(disk / "mllog.txt"), "w")
    filler = small_disk.fill(disk)
    for number in range(5):
        handler.emit(logging.makeLogRecord({"msg": f":::MLLOG {number}"}))
    filler.unlink()
    handler.close()
    assert (disk / "mllog.txt").read_text().splitlines() == [f":::MLLOG {number}" for number in range(5)]
    assert capsys.readouterr().err.count("cannot be written: No space left on device") == 1


def test_a_json_file_keeps_its_old_content_until_there_is_space(disk: Path) -> None:
    file = JsonFile(str(disk / "a.json"))
    file.replace({"a": 1})
    filler = small_disk.fill(disk)
    file.replace({"a": 2, "long": "x" * 10_000})
    assert json.loads((disk / "a.json").read_text()) == {"a": 1}
    filler.unlink()
    file.flush()
    assert json.loads((disk / "a.json").read_text())["a"] == 2


def test_a_file_that_is_moved_away_begins_anew(tmp_path: Path) -> None:
    file = AppendedFile(str(tmp_path / "log"))
    file.append(b"1\n")
    os.rename(tmp_path / "log", tmp_path / "old")
    file.append(b"2\n")
    assert (tmp_path / "log").read_bytes() == b"2\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"1\n2\n8\n9\n", b"1\n2\n"),
        (b"1\n2\n8\n9", b"1\n2\n"),
        (b"1\n8\n2\n9\n3\n", b"1\n2\n3\n"),
        (b"1\n2", b"1\n"),
        (b"", b""),
    ],
)
def test_lines_are_removed_by_what_they_say(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(before)
    file = AppendedFile(str(path))
    file.keep_lines(lambda line: line < b"5")
    assert path.read_bytes() == after
    file.append(b"4\n")
    assert path.read_bytes() == after + b"4\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


def test_lines_are_removed_on_a_full_disk_too(disk: Path, capsys: pytest.CaptureFixture) -> None:
    (disk / "log").write_bytes(b"1\n8\n2\n9\n" + line(3))
    small_disk.fill(disk)
    file = AppendedFile(str(disk / "log"))
    file.keep_lines(lambda line: line < b"5")
    file.append(b"4\n")
    assert (disk / "log").read_bytes() == b"1\n2\n" + line(3) + b"4\n"
    assert capsys.readouterr().err == ""


def test_a_json_file_is_read_back_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    JsonFile(str(path)).replace({"ranks": 2})
    assert read_json_object(str(path)) == {"ranks": 2}
    for content, problem in (
        (b'{"', "is damaged: no JSON"),
        (b"\xff", "is damaged: no JSON"),
        (b"[]", "is no JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match=problem):
            read_json_object(str(path))
    with pytest.raises(UnreadableFileError, match="is missing") as caught:
        read_json_object(str(tmp_path / "none"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(UnreadableFileError, match=r"cannot be read \(Is a directory\)"):
        read_json_object(str(tmp_path))


def test_a_link_in_the_place_of_a_run_s_own_file_is_not_followed(tmp_path: Path, capsys) -> None:
    """A path that the user has named may be one, as /dev/stdout is."""
    (tmp_path / "precious").write_text("old\n")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    own = AppendedFile(str(tmp_path / "log"))
    own.keep_lines(lambda line: False)
    own.append(b"new\n")
    assert (tmp_path / "precious").read_text() == "old\n"
    AppendedFile(str(tmp_path / "log"), is_own=False).append(b"new\n")
    assert (tmp_path / "precious").read_text() == "old\nnew\n"
