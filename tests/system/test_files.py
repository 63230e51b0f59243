"""Files that appear complete or not at all, the cache folder, the cores of this process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bert_pretrain.system import files


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with files.atomic_write(str(path)) as file:
        file.write("grün\n")
        assert not path.exists() and all(entry.name.startswith(".") for entry in path.parent.iterdir())
    assert path.read_bytes() == "grün\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_exception_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(str(path), "wb") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"earlier" and [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_only_regular_files_are_opened_for_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"gr\xc3\xbcn\r\n")
    with files.open_regular(str(tmp_path / "file"), newline="\n") as file:
        assert file.read() == "grün\r\n"
    with files.open_regular(str(tmp_path / "file"), "rb", buffering=0) as file:
        assert file.read() == b"gr\xc3\xbcn\r\n"
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for path in (str(tmp_path / "fifo"), "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            files.open_regular(path)
    with pytest.raises(IsADirectoryError):
        files.open_regular(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        files.open_regular(str(tmp_path / "nothing"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_json_is_written_with_a_final_line_end(tmp_path: Path) -> None:
    files.write_json(str(tmp_path / "a.json"), {"a": "ü"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": "ü"} and "ü" in text and text.endswith("}\n")


def test_what_killed_processes_left_is_removed_and_other_files_stay(tmp_path: Path) -> None:
    for name in (".shard.123.partial", ".shard.9.partial", ".shard2.9.partial", "shard", ".shard.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".shard.3.partial").mkdir()
    files.remove_partials(str(tmp_path / "shard"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".shard.txt", ".shard2.9.partial", "shard"]
    files.remove_partials(str(tmp_path / "no" / "such" / "directory"))


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/home/someone")
    assert files.cache_directory("index") == Path("/a/index")
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", "~/a")
    assert files.cache_directory("index") == Path("/home/someone/a/index")
    monkeypatch.delenv("BERT_PRETRAIN_CACHE")
    assert files.cache_directory("index") == Path("/b/bert_pretrain/index")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_directory("index") == Path("/home/someone/.cache/bert_pretrain/index")


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert files.num_cores() == 2


def test_what_exists_is_one_name_and_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a,b", " c", "q[1]", "q1", "-x", "\udcff"):
        (tmp_path / name).mkdir()
    assert files.split_names("a, b,,d ") == ["a", "b", "d"]
    assert files.split_names("a,b,b, c,c,-x") == ["a,b", "b", " c", "c", "-x"]
    assert files.split_names("a/x,a,b/x") == ["a/x", "a", "b/x"], "where a,b/x does not exist"
    (tmp_path / "a,b" / "x").touch()
    assert files.split_names("a,a,b/x") == ["a", "a,b/x"]
    assert files.match_names("q[1],?1,z*,\udcff") == [
        ("q[1]", ["q[1]"]), ("?1", ["q1"]), ("z*", []), ("\udcff", ["\udcff"]),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["out [8]", "a*", "?", "back\\", "\udcff\udc80", "new\nline]", "plain"])
def test_a_library_gets_a_plain_name_of_a_folder_or_checkpoint(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with files.plain_name(str(folder)) as plain:
        assert plain.encode() and (plain == str(folder)) is (name == "plain")
        Path(plain, "written").touch()
    assert ((folder / "written").is_file() and not os.path.lexists(f"{plain}/..")) or name == "plain"
    prefix = folder / f"model{name}"
    for suffix in (".index", ".data-00000-of-00001", "2.index"):
        Path(f"{prefix}{suffix}").write_text(suffix)
    with files.plain_name(str(prefix)) as plain:
        assert Path(f"{plain}.index").read_text() == ".index"
        assert Path(f"{plain}.data-00000-of-00001").read_text() == ".data-00000-of-00001"
        assert not set(plain) & set("*?[]\\")


def test_json_holds_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    path = str(tmp_path / "a\udcff.json")
    files.write_json(path, {"path": path, "ü": "\\udcff"})
    assert Path(path).read_text(encoding="utf-8").count("\\udcff") == 2
    assert json.loads(Path(path).read_text(encoding="utf-8")) == {"path": path, "ü": "\\udcff"}
