"""Large files in pieces: the same documents as those of the whole file."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.text import extraction
from bert_pretrain.make_data.text.account import Account
from bert_pretrain.make_data.text.parts import cut_into_pieces
from bert_pretrain.make_data.text.reading import TextSource, find_sources

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")

WORDS = "der Hund läuft über die Straße und schläft dann unter dem alten Baum".split()


def texts(count: int = 60) -> list[list[str]]:
    """Documents of some sentences."""
    rng = random.Random(count)
    return [
        [" ".join(rng.choices(WORDS, k=8)).capitalize() + "." for _ in range(rng.randrange(1, 9))] for _ in range(count)
    ]


def extract(sources: list[TextSource], settings: TextConfig) -> tuple[list[list[str]], dict[str, int], list[str]]:
    account = Account()
    found = [document for source in sources for document in extraction.extract_documents(source, settings, account)]
    return found, dict(account.counts), account.notes


def same_in_pieces(path: Path, settings: TextConfig) -> int:
    """Compares pieces of many sizes with the whole file; returns the largest number of pieces."""
    (source,) = find_sources(str(path))[0]
    whole = extract([source], settings)
    assert len(whole[0]) > 20
    most = 0
    for size in (1, 50, 130, 333, 1000, 2500, 5000):
        found = cut_into_pieces(source, settings, size)
        assert sum(piece.num_bytes for piece in found) <= source.num_bytes
        assert extract(found, settings) == whole
        most = max(most, len(found))
    return most


def json_lines() -> str:
    return "".join(json.dumps({"text": " ".join(text)}, ensure_ascii=False) + "\n\n" for text in texts())


def blank_lines() -> str:
    return " \t\n\n".join("\n".join(text) + "\n" for text in texts())


def marked() -> str:
    return "".join(f'<doc id="1" title="T">\nT\n\n{" ".join(text)}\n</doc>\n' for text in texts())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", json_lines()), ("a.txt", blank_lines()), ("a", marked())])
def test_pieces_have_the_documents_of_the_file(
    tmp_path: Path, name: str, content: str, end: str, encoding: str
) -> None:
    (tmp_path / name).write_bytes(content.replace("\n", end).encode(encoding))
    assert same_in_pieces(tmp_path / name, TextConfig(language="de")) > 20


def test_row_groups_of_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": [" ".join(text) for text in texts()]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    assert same_in_pieces(tmp_path / "a.parquet", TextConfig()) == 12


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.txt", blank_lines().encode("utf-16"), {}),
        ("a.txt", blank_lines().encode(), {"documents": "file"}),
        ("a.md", blank_lines().encode(), {}),
        ("a.jsonl", json_lines().encode(), {"held_out": "mlperf"}),
        ("a.jsonl", b"\x89PNG\0\0\0\r" * 99, {}),
        ("a.jsonl", json_lines().encode().replace(b"\n", b"\r"), {}),
        ("a.parquet", b"PAR1" * 999, {}),
    ],
)
def test_what_cannot_be_cut_stays_whole(tmp_path: Path, name: str, content: bytes, settings: dict[str, str]) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    (source,) = find_sources(str(tmp_path / name))[0]
    found = cut_into_pieces(source, TextConfig(**settings), 100)
    assert [piece.num_bytes for piece in found] == [len(content)]


def test_bad_json_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    lines = json_lines().splitlines()
    lines[70] = "{"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (source,) = find_sources(str(tmp_path / "a.jsonl"))[0]
    assert any("line 71 is" in note for note in extract(cut_into_pieces(source, TextConfig(), 500), TextConfig())[2])


def test_damaged_places_of_a_piece_are_named_by_its_bytes(tmp_path: Path) -> None:
    content = json_lines().encode() * 3
    content += json.dumps({"text": "It is damaged. Here it is: X."}).encode().replace(b"X", b"\xff\xff")
    (tmp_path / "a.jsonl").write_bytes(content)
    (source,) = find_sources(str(tmp_path / "a.jsonl"))[0]
    found = cut_into_pieces(source, TextConfig(), 10_000)
    _, counts, (note,) = extract(found, TextConfig())
    assert counts["damaged characters"] == 2
    assert f"a.jsonl, bytes {found[-1].start} to {len(content)}: 2 characters are not utf-8" in note
