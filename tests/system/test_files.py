"""Files that appear complete or not at all, the cache folder, the cores of this process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
from pathlib import Path
from typing import NoReturn, Optional

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


def test_nobody_can_put_a_link_where_a_file_or_directory_is_written_first(tmp_path: Path, monkeypatch) -> None:
    """Names of older versions, which had this process's number alone, and the same random number twice."""
    precious = tmp_path / "precious"
    precious.write_text("old")
    for name in ("file", "folder"):
        (tmp_path / f".{name}.{os.getpid()}.partial").symlink_to(precious)
    with files.atomic_write(str(tmp_path / "file")) as file, files.atomic_directory(str(tmp_path / "folder")) as folder:
        file.write("new")
        assert not os.path.islink(folder) and os.listdir(folder) == []
    assert precious.read_text() == "old" and (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "folder").is_dir()
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / f".file.{os.getpid()}-{bytes(4).hex()}.partial").symlink_to(precious)
    with pytest.raises(FileExistsError), files.atomic_write(str(tmp_path / "file")):
        pass
    assert precious.read_text() == "old" and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_durable: bool
) -> None:
    path, calls = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        calls.append(("fsync", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def noted_replace(source: str, target: str) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with files.atomic_write(str(path), is_durable=is_durable) as file:
        file.write("new")
    of_file, of_folder = ("fsync", path.stat().st_ino, 3), ("fsync", tmp_path.stat().st_ino, tmp_path.stat().st_size)
    assert calls == ([of_file, "replace", of_folder] if is_durable else ["replace"])


def test_a_directory_is_on_the_disk_with_all_that_it_contains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    with files.atomic_directory(str(tmp_path / "folder")) as folder:
        Path(folder, "below").mkdir()
        Path(folder, "below", "file").write_text("new")
    made = [tmp_path / name for name in ("folder/below/file", "folder/below", "folder", ".")]
    assert {path.stat().st_ino for path in made} <= set(synced) and synced[-1] == tmp_path.stat().st_ino


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_cannot_tell_is_none_that_fails(tmp_path: Path, monkeypatch, code: int) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", fsync)
    with contextlib.nullcontext() if code == errno.EINVAL else pytest.raises(OSError):
        files.write_json(str(tmp_path / "file"), 5)
    assert (tmp_path / "file").read_text() == ("5\n" if code == errno.EINVAL else "old")
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_of_our_own_is_never_what_a_link_or_a_pipe_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "nowhere", "fifo"):
        for mode in ("rb", "wb", "ab", "r+b"):
            with pytest.raises(OSError), open(tmp_path / name, mode, opener=files.open_itself):
                pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tmp_path / "precious").read_text() == "old" and not (tmp_path / "new").exists()
    with open(tmp_path / "precious", "ab", opener=files.open_itself) as file:
        file.write(b"er")
    assert (tmp_path / "precious").read_text() == "older"


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


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is started with --user and a number."""

    def no_such_user(number: int) -> NoReturn:
        raise KeyError(number)

    for name in ("BERT_PRETRAIN_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    assert files.cache_directory("index") == Path(f"/tmp/bert_pretrain-{os.getuid()}/index")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert files.cache_directory("index") == Path("/b/bert_pretrain/index")


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    monkeypatch.setattr(files, "_cpu_quotas", lambda root: [])
    assert files.num_cores() == 2
    monkeypatch.setattr(files, "_cpu_quotas", lambda root: [1.0])
    assert files.num_cores() == 1


V1 = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/docker/a\n"


@pytest.mark.parametrize(
    ("groups", "limits", "cores"),
    [
        ("0::/", {}, 64),
        ("0::/", {"cpu.max": "max 100000\n"}, 64),
        ("0::/", {"cpu.max": "400000 100000\n"}, 4),  # docker run --cpus=4
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "damaged"}, 64),
        ("0::/slurm/job/step", {"slurm/job/step/cpu.max": "max 100000", "slurm/job/cpu.max": "300000 100000"}, 3),
        ("0::/../../other", {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        # The container sees its own group as the highest one, by the host's path.
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "600000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 6),
        (V1, {"cpu/docker/a/cpu.cfs_quota_us": "250000\n", "cpu/docker/a/cpu.cfs_period_us": "100000\n"}, 3),
        (None, {}, 64),
    ],
)  # fmt: skip
def test_a_container_s_quota_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: Optional[str], limits: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    if groups is not None:
        limits = {**{f"sys/fs/cgroup/{name}": text for name, text in limits.items()}, "proc/self/cgroup": groups}
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert files.num_host_cores(str(tmp_path)) == cores


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
