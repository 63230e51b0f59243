"""Files that appear complete or not at all, the cache folder, the cores of this process."""

from __future__ import annotations

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
