"""Finding raw files, and reading their bytes as text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from bert_pretrain.make_data.raw_text import decoding
from bert_pretrain.make_data.raw_text.sources import Source, find_sources

TEXT = "Der Bär läuft schön über die Straße.\nÉtait-ce déjà l'été à la fenêtre?\n" * 20


def source(path: Path, compression: str = "") -> Source:
    return Source(str(path), "text", compression, path.stat().st_size)


def read(path: Path, compression: str = "") -> str:
    return "".join(f"{line}\n" for line in decoding.lines(source(path, compression), "utf-8"))


def test_folders_are_searched_and_other_suffixes_counted(tmp_path: Path) -> None:
    names = ["b/x.txt", "b/.hidden.txt", ".git/y.txt", "a.MD", "c/README", "c/z.py", "c/w.jsonl.gz", "i.png", "j.py"]
    for name in [*names, "empty.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name.startswith("empty") else "text")
    found, left_out = find_sources(f"{tmp_path},{tmp_path}/b")
    assert [(Path(one.path).name, one.form, one.compression) for one in found] == [
        ("a.MD", "markdown", ""), ("x.txt", "text", ""), ("README", "text", ""), ("w.jsonl.gz", "jsonl", ".gz"),
    ]  # fmt: skip
    assert left_out == {".py": 2, ".png": 1, "(empty)": 1}
    assert find_sources(f"{tmp_path}/j.py")[0][0].form == "text"  # named by the user


def test_a_folder_without_text_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(ValueError, match=r"holds no text \(1 \.png\); known are \.htm"):
        find_sources(str(tmp_path))
    with pytest.raises(ValueError, match="no file matches"):
        find_sources(f"{tmp_path}/*.txt")


def test_damaged_places_in_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((TEXT * 30).encode() + b"\xff\xfe" + TEXT.encode())
    count = [0]
    text = "\n".join(decoding.lines(source(path), "utf-8", count))
    assert text.count("\ufffd") == count[0] == 2 and text.count("Bär") == 31 * 20


def test_bytes_are_counted_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(("a\ufffdbc\ufffd\ufffd" * 9).encode())
    for chunk in (1, 2, 3, 4, 100):
        monkeypatch.setattr(decoding, "_CHUNK", chunk)
        assert decoding.count(source(tmp_path / "a"), "\ufffd".encode()) == 27


def compress(suffix: str, content: bytes) -> bytes:
    if suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.compress(content[:9]) + zstandard.compress(content[9:])  # two frames, as zstd -T writes
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](content)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(suffix, TEXT.encode()))
    assert read(path, suffix) == TEXT
    path.write_bytes(compress(suffix, TEXT.encode())[:-20])
    with pytest.raises(ValueError, match=r"a\.\w+: cannot be read \("):
        read(path, suffix)
    path.write_bytes(b"no such format")
    with pytest.raises(ValueError, match=r"a\.\w+: cannot be read \("):
        read(path, suffix)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a strange file needs no_such_library, which is not installed; run: bash"):
        decoding.need("no_such_library", "a strange file")
