"""Files, checkpoints and model folders in a bucket, as local paths."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Optional

import pytest

from bert_pretrain.config.option import option
from bert_pretrain.storage import local_copies, remote
from tests.storage import servers

servers.require()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fetched"


@pytest.fixture
def folders(put) -> None:
    """Objects whose content is their name."""
    for key in (
        *("run/checkpoint", "run/run.json", "run/model.ckpt-5.index", "run/model.ckpt-5.data-00000-of-00001"),
        *("run/model.ckpt-50.index", "run/model.ckpt-50.data-00000-of-00001", "run/metrics.jsonl"),
        *("run/best/checkpoint", "run/best/model.ckpt-5.index", "run/best/model.ckpt-5.data-00000-of-00001"),
        *("hub/model.safetensors", "hub/config.json", "hub/vocab.txt", "hub/README.md"),
        *("split/model.safetensors.index.json", "split/a.safetensors", "split/b.safetensors", "split/config.json"),
        *("empty/README.md", "vocab.txt"),
    ):
        state = b'model_checkpoint_path: "model.ckpt-5"\nall_model_checkpoint_paths: "model.ckpt-5"\n'
        put(key, state if key.endswith("/checkpoint") else key.encode())


@pytest.mark.parametrize(
    ("named", "path", "held"),
    [
        ("vocab.txt", "vocab.txt", {"vocab.txt"}),
        ("hub/config.json", "hub/config.json", {"hub/config.json", "hub/vocab.txt"}),
        ("hub/", "hub", {"hub/model.safetensors", "hub/config.json", "hub/vocab.txt"}),
        ("hub/model.safetensors", None, {"hub/model.safetensors", "hub/config.json", "hub/vocab.txt"}),
        (
            "split",
            "split",
            {"split/model.safetensors.index.json", "split/a.safetensors", "split/b.safetensors", "split/config.json"},
        ),
        (
            "run/model.ckpt-50",
            None,
            {"run/model.ckpt-50.index", "run/model.ckpt-50.data-00000-of-00001", "run/run.json"},
        ),
        (
            "run",
            "run",
            {"run/checkpoint", "run/model.ckpt-5.index", "run/model.ckpt-5.data-00000-of-00001", "run/run.json"},
        ),
        (
            "run/best",
            "best",
            {"best/checkpoint", "best/model.ckpt-5.index", "best/model.ckpt-5.data-00000-of-00001", "run.json"},
        ),
    ],
)
def test_what_a_url_names_is_fetched_with_what_describes_it(
    bucket, folders, cache, named: str, path: Optional[str], held: set[str]
) -> None:
    found = Path(local_copies.local_path("init_checkpoint", f"{bucket}/{named}"))
    (copy,) = (entry for entry in cache.iterdir() if entry.is_dir())
    assert str(found.relative_to(copy)).endswith(path or named)
    inside = {str(file.relative_to(copy)): file for file in copy.rglob("*") if file.is_file()}
    if named == "vocab.txt":
        inside = {os.path.basename(name): file for name, file in inside.items()}
    assert set(inside) == held
    for name, file in inside.items():
        assert name.endswith("checkpoint") or file.read_text().endswith(name)


def test_a_path_stays_a_path_and_only_fields_that_are_fetched_are(bucket, put) -> None:
    @dataclasses.dataclass
    class Settings:
        file: str = option("x", "One.", is_path=True, is_fetched=True)
        shards: str = option("y", "Two.", is_path=True, takes_url=True)

    url = put("a/file", b"content")
    found = local_copies.localize_settings(Settings(url, url))
    assert Path(found.file).read_bytes() == b"content" and found.shards == url
    assert local_copies.localize_settings(Settings()) == Settings()


def test_a_file_is_fetched_once_by_many_and_again_where_it_was_replaced(put, proxy, cache, monkeypatch) -> None:
    monkeypatch.setattr(remote, "_DOWNLOAD_PART_BYTES", 1000)
    url, content = put("a/vocab.txt", bytes(range(256)) * 20), bytes(range(256)) * 20
    proxy.choose = lambda number, path: servers.FAULTS[number // 2 % 4] if number % 2 else None
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(local_copies.local_path("f", url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and len(set(found)) == 1 and Path(found[0]).read_bytes() == content
    assert 6 <= proxy.num_gets <= 20 and sum(proxy.faults.values()) >= 3
    put("a/vocab.txt", b"another")
    again = local_copies.local_path("f", url)
    assert again != found[0] and Path(again).read_bytes() == b"another"


def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(bucket, put, folders, proxy, cache, monkeypatch) -> None:
    for missing in (f"{bucket}/nothing", f"{bucket}/no/such", f"{bucket}/empty", "s3://no-such-bucket-here/x"):
        with pytest.raises(ValueError, match=f"^--init_checkpoint: {missing}: no such "):
            local_copies.local_path("init_checkpoint", missing)
    monkeypatch.setattr("bert_pretrain.storage.remote.TRIES", 2)
    proxy.choose = lambda number, path: "truncated"
    with pytest.raises(ValueError, match=f"^--f: {bucket}/vocab.txt cannot be fetched \\(2 tries failed"):
        local_copies.local_path("f", f"{bucket}/vocab.txt")
    assert not [entry for entry in cache.iterdir() if not entry.name.endswith(".lock")]
    (cache.parent / "fetched").rename(cache.parent / "away")
    (cache.parent / "fetched").write_text("a file")
    with pytest.raises(ValueError, match=r"^--f: s3://.*/vocab.txt cannot be fetched to .*/fetched \(File exists\)$"):
        local_copies.local_path("f", f"{bucket}/vocab.txt")


def test_the_files_of_a_run_are_fetched_for_a_report(bucket, folders) -> None:
    folder = Path(local_copies.local_folder("RUN_DIR", f"{bucket}/run", ("run.json", "metrics.jsonl", "results.json")))
    assert folder.name == "run" and {path.name for path in folder.iterdir()} == {"run.json", "metrics.jsonl"}
