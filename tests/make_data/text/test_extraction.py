"""Raw files of each form as documents of sentences."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.text import extraction
from bert_pretrain.make_data.text.reading import find_sources

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")

STORY = "The cat sat on the mat. It was a fine day outside. Nobody was there to see it."
SENTENCES = ["The cat sat on the mat.", "It was a fine day outside.", "Nobody was there to see it."]


def extract(path: Path, **settings: str) -> list[list[str]]:
    account = extraction.Account()
    return [
        document
        for source in find_sources(str(path))[0]
        for document in extraction.extract_documents(source, TextConfig(**settings), account)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", STORY.replace("day outside", "day\noutside")),
        ("a.rst", f"Title\n=====\n\n{STORY}\n"),
        ("a.md", f"# Title\n\n{STORY}\n"),
        ("a.html", f"<h1>Title</h1><p>{STORY}</p>"),
        ("a.jsonl", json.dumps({"text": STORY, "title": "T"})),
        ("wiki_00", f'<doc id="1" title="T">\nT\n\n{STORY}\n</doc>\n'),
        ("wiki_01", json.dumps({"text": f"T\n{STORY}"}) + "\n"),
    ],
)
def test_every_form_gives_the_same_document(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert extract(tmp_path / name) == [SENTENCES]


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": [STORY, None, STORY], "number": [1, 2, 3]}), path)
    assert extract(path) == [SENTENCES, SENTENCES]
    with pytest.raises(ValueError, match=r"a\.parquet: no column body; --text_column names one of text, number"):
        extract(path, text_column="body")
    with pytest.raises(ValueError, match=r"a\.parquet: column number holds int, not text"):
        extract(path, text_column="number")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read \("):
        extract(path)


def test_documents_by_setting_and_by_look(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = "\n".join(SENTENCES)
    path.write_text(f"{lines}\n\n{lines}\n")
    assert extract(path) == extract(path, documents="blank_line") == [SENTENCES, SENTENCES]
    assert extract(path, documents="file") == [[*SENTENCES, *SENTENCES]]
    path.write_text("\n\n".join([STORY] * 3))  # paragraphs or documents: nothing tells
    assert extract(path) == [SENTENCES * 3] and extract(path, documents="blank_line") == [SENTENCES] * 3
    path.write_text(json.dumps({"body": STORY}))
    assert extract(path, documents="jsonl", text_column="body") == [SENTENCES]


@pytest.mark.parametrize(
    ("language", "first", "second"),
    [
        ("hi", "यह एक लंबा वाक्य है।", "यह दूसरा वाक्य भी यहाँ है।"), ("bn", "এটি একটি দীর্ঘ বাক্য।", "এটি দ্বিতীয় বাক্য এখানে।"),
        ("am", "ይህ ረጅም ዓረፍተ ነገር ነው።", "ይህ ሌላ ረጅም ነው።"), ("hy", "Սա երկար նախադասություն է։", "Սա երկրորդն է այստեղ։"),
        ("my", "ဒါက ရှည်လျားတဲ့ ဝါကျ တစ်ခုပါ။", "ဒါက နောက် တစ်ခုပါ။"), ("ur", "یہ ایک لمبا جملہ ہے۔", "یہ دوسرا جملہ ہے۔"),
        ("fa", "آیا این یک جمله بلند است؟", "آیا این دومین است؟"),
        ("ko", "어제 밤 늦게 눈이 왔다.", "아이들은 정말 기뻐한다."),
        ("ja", "今日は天気がいいので公園へ行きました。", "桜の花がとても綺麗でした。"),
        ("zh", "昨天晚上下了很大的雪。", "孩子们都很高兴吗？"),
    ],
)  # fmt: skip
def test_the_stops_of_other_scripts_end_sentences(tmp_path: Path, language: str, first: str, second: str) -> None:
    (tmp_path / "a.txt").write_text(f"{first} {second}\n\n{second} {first}\n")
    assert extract(tmp_path / "a.txt", language=language) == [[first, second, second, first]]


@pytest.mark.parametrize("line", ['{"title": 1}', "[1]", '{"text": 3}', "{", '{"text": "\\ud800"}'])
def test_bad_json_is_named_by_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": STORY}) + "\n" + line)
    with pytest.raises(ValueError, match=r'a\.jsonl: line 2 is not a JSON object with a "text"'):
        extract(tmp_path / "a.jsonl")


def test_long_documents_are_cut_between_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join([STORY] * 30_000))
    documents = extract(tmp_path / "a.txt")
    assert len(documents) == 3 and sum(map(len, documents)) == 3 * 30_000


def test_a_json_line_of_megabytes_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": f"{STORY}\n" * 50_000}))
    assert [len(document) for document in extract(tmp_path / "a.jsonl")] == [150_000]


def test_what_is_no_text_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\0\0\0\r")
    (tmp_path / "b.txt").write_bytes(
        "Größe zählt für fünf schöne Bäume. Überall lag Laub auf der Straße.\n".encode("latin-1") * 9
    )
    account = extraction.Account()
    for source in find_sources(str(tmp_path))[0]:
        list(extraction.extract_documents(source, TextConfig(language="de"), account))
    assert account.counts["binary files"] == 1
    assert [note.rpartition("/")[2] for note in account.notes] == [
        "a.txt: binary, left out",
        "b.txt: in cp1252 by --language=de, converted",
    ]


def test_a_replacement_character_of_the_text_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{STORY} A \ufffd stands for what cannot be decoded.\n")
    account = extraction.Account()
    for source in find_sources(str(tmp_path))[0]:
        list(extraction.extract_documents(source, TextConfig(), account))
    assert not account.notes and not account.counts["damaged characters"]
