"""Raw files of each form as documents of sentences."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.text import extraction, reading
from bert_pretrain.make_data.text.account import Account, count_characters
from bert_pretrain.make_data.text.reading import find_sources
from tests.make_data.text.test_reading import TEXTS, compress

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")

STORY = "The cat sat on the mat. It was a fine day outside. Nobody was there to see it."
SENTENCES = ["The cat sat on the mat.", "It was a fine day outside.", "Nobody was there to see it."]


def extract(path: Path, **settings: str) -> list[list[str]]:
    account = Account()
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


BAD_LINES = {
    '{"title": 1}': 'has no "text"', "[1]": "is not a JSON object", '{"text": 3}': 'has no text as "text"',
    '{"text": null}': 'has null as "text"', "{": "is not JSON", "[" * 100_000: "is not JSON", "NULL\0": "is not JSON",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_record_is_left_out_and_counted_and_only_bad_ones_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps({"text": STORY}), "", line, json.dumps({"text": STORY})]))
    account = Account()
    (source,) = find_sources(str(path))[0]
    assert list(extraction.extract_documents(source, TextConfig(), account)) == [SENTENCES] * 2
    assert account.left_out[f"records: {BAD_LINES[line]}"]["documents"] == 1 and account.read["documents"] == 3
    assert account.notes == [f"{path}: line 3 {BAD_LINES[line]}, left out"] and account.check() is None
    path.write_text(f"{line}\n" * 3)
    with pytest.raises(ValueError, match=r"a\.jsonl: none of 3 records .*line 1 .*--text_column"):
        extract(path)


def test_numbers_of_any_length_and_half_characters_are_no_errors(tmp_path: Path) -> None:
    number = "9" * 100_000
    (tmp_path / "a.jsonl").write_text(f'{{"id": {number}, "text": "{STORY} It is \\ud800 and \\u0000 here."}}')
    assert extract(tmp_path / "a.jsonl") == [[*SENTENCES, "It is \ufffd and here."]]
    (tmp_path / "a.html").write_text(f"<p>{STORY} It costs &#{number}; and &#x0000000000041; now.</p>")
    assert extract(tmp_path / "a.html") == [[*SENTENCES, "It costs \ufffd and A now."]]


STRANGE = {
    "a.txt": f"\ufeffA title\n=====\n\n{STORY}\n\n| a | b |\n\n* item\n\nx = f(1);\n\n{STORY} 123. 4.\n\0\n\n- x\n",
    "b.txt": "\n".join(SENTENCES) + "\n\nAlone.\n\n" + "\n".join(SENTENCES),
    "a.rst": "Title\n=====\n\n.. note:: Hear.\n\n.. code::\n\n   x\n\n"
    f"See :ref:`this <x>`. {STORY}::\n\n   code\n\n- i\n",
    "a.md": f"---\nfront: x\n---\n# T *i*\n\n{STORY} ![image](x.png) <b>x</b>\n\n<div>html</div>\n\n"
    "|a|b|\n|-|-|\n|c|d|\n\n    code\n\n- i\n",
    "a.html": "<head><title>T</title><body class='x>y'><!-- c --><script>if (a<b) f()</script><nav>N</nav><h1>H</h1>"
    f"<p>{STORY} &amp; &lt;so on&gt;.<br>Next <b>x</b>.<ruby>a<rt>b</rt></ruby><table><tr><td>1</table><li>i<p>1. 2.",
    "a.jsonl": "\n".join(
        [json.dumps({"text": STORY, "title": "T"}), '{"text": null}', "", "[", json.dumps({"text": "今日は。" + STORY})]
    ),
    "wiki_00": f'<doc id="1" title="T">\nT\n\n{STORY} formula_1 &amp;amp; [[x]] ( )\nshort.\n</doc>\n'
    '<doc id="2">\nU\n\nNo.\n</doc>\n',
    "binary.txt": "\x01\x02\x03" * 99,
    "c.txt": "Größe zählt. Überall lag Laub auf der Straße.\n" * 20,
    "d.txt": "Größe zählt. Überall lag Laub auf der Straße.\n" * 20 + "\0",
}


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", STRANGE)
def test_all_that_is_read_is_kept_or_left_out_for_a_reason(tmp_path: Path, name: str, suffix: str) -> None:
    content = STRANGE[name].encode("cp1252" if name == "c.txt" else "utf-8")
    path = tmp_path / (name + suffix)
    path.write_bytes(compress(suffix, content) if suffix else content)
    account = Account()
    (source,) = find_sources(str(path))[0]
    found = list(extraction.extract_documents(source, TextConfig(), account))
    assert account.check() is None and all(min(amount.values()) >= 0 for amount in account.left_out.values())
    left_out = sum(amount["documents"] for amount in account.left_out.values())
    assert account.read["documents"] == len(found) + left_out > 0
    assert account.kept["characters"] == sum(count_characters(text) for document in found for text in document)
    if name != "binary.txt":
        assert found and account.read["characters"] == count_characters(STRANGE[name].lstrip("\ufeff"))


def test_rows_of_parquet_are_kept_or_left_out(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [STORY, None, "Short.", STORY + "\nA title\n1. 2. 3. 4."]
    parquet.write_table(arrow.table({"text": texts, "url": ["u"] * 4}), tmp_path / "a.parquet")
    account = Account()
    (source,) = find_sources(str(tmp_path / "a.parquet"))[0]
    assert len(list(extraction.extract_documents(source, TextConfig(), account))) == 2
    assert account.check() is None and account.read["documents"] == 4
    assert account.read["characters"] == sum(count_characters(text or "") for text in texts)
    assert "not url" in account.notes[0]
    parquet.write_table(arrow.table({"text": arrow.array([None, None], arrow.string())}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="none of 2 records"):
        extract(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.html", "a.jsonl"])
def test_a_document_that_is_too_large_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (extraction, reading):
        monkeypatch.setattr(module, "MAX_LINE", 1000)
    pages = [f"<p>{STORY} </p>" * size for size in (9, 99, 9)]
    lines = [json.dumps({"text": f"{STORY} " * size}) for size in (1, 99, 1)]
    for number, page in enumerate(pages if name == "a.html" else ["\n".join(lines)]):
        (tmp_path / f"{number}{name}").write_text(page)
    account = Account()
    for source in find_sources(str(tmp_path))[0]:
        list(extraction.extract_documents(source, TextConfig(), account))
    assert account.check() is None and len(account.notes) == 1
    assert sum(amount["documents"] for amount in account.left_out.values()) == 1 and account.kept["documents"] == 2


def test_a_line_of_megabytes_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{STORY} " * 40_000)
    account = Account()
    (source,) = find_sources(str(tmp_path / "a.txt"))[0]
    documents = list(extraction.extract_documents(source, TextConfig(), account))
    assert len(documents) > 1 and account.check() is None and not account.left_out
    assert sum(map(len, documents)) >= 3 * 40_000 and account.counts["parts of long lines"] == 4


@pytest.mark.parametrize("language", ["ja", "zh", "ru", "uk", "ko", "el"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.html", "a.parquet", "wiki_00"])
def test_the_letters_tell_the_language(tmp_path: Path, language: str, name: str) -> None:
    text = TEXTS[language] * 3
    if name == "a.parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"text": [text]}), tmp_path / name)
    else:
        forms = {
            "a.html": f"<div class='a long name of a class'><p>{text}</p></div>",
            "a.jsonl": json.dumps({"text": text}),
            "wiki_00": f'<doc id="1">\nt\n{text}</doc>\n',
        }
        (tmp_path / name).write_text(forms.get(name, text))
    (source,) = find_sources(str(tmp_path / name))[0]
    account = Account()
    found = list(extraction.extract_documents(source, TextConfig(), account))
    assert account.counts[f"files in language {language}"] == 1
    assert found == list(extraction.extract_documents(source, TextConfig(language=language), Account()))


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
    account = Account()
    for source in find_sources(str(tmp_path))[0]:
        list(extraction.extract_documents(source, TextConfig(language="de"), account))
    assert account.counts["binary files"] == 1
    assert [note.rpartition("/")[2] for note in account.notes] == [
        "a.txt: binary, left out",
        "b.txt: in cp1252 by --language=de, converted; --encoding names another",
    ]


def test_a_replacement_character_of_the_text_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{STORY} A \ufffd stands for what cannot be decoded.\n")
    account = Account()
    for source in find_sources(str(tmp_path))[0]:
        list(extraction.extract_documents(source, TextConfig(), account))
    assert not account.notes and not account.counts["damaged characters"]
