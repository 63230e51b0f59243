"""Wikipedia dumps: their language, and an account of all of their pages."""

from __future__ import annotations

import bz2
import html
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import script
from bert_pretrain.make_data.text import make_text
from bert_pretrain.make_data.text.wikipedia_dump import ACCOUNT_FILE, find_dump_language
from bert_pretrain.system.worker_pool import worker_processes

ROOT = Path(__file__).parents[3]
DUMP = ROOT / "tests" / "make_data" / "wikipedia" / "dump.xml"
JAPANESE = "今日は天気がいいので、友達と一緒に公園へ行きました。桜の花がとても綺麗でした。"

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sentencex", "wikiextractor")),
    reason="needs sentencex and wikiextractor",
)


def dump_of(texts: list[str], language: str = "ja", ns: str = "0") -> str:
    head = DUMP.read_text().partition("<page>")[0].replace('xml:lang="en"', f'xml:lang="{language}"')
    pages = [
        f"<page>\n<title>T{number}</title>\n<ns>{ns}</ns>\n<id>{number + 1}</id>\n<revision>\n<id>{number}</id>\n"
        f'<text xml:space="preserve">{html.escape(text)}</text>\n</revision>\n</page>\n'
        for number, text in enumerate(texts)
    ]
    return head + "".join(pages) + "</mediawiki>\n"


def extract(dump: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bert_pretrain.make_data.text.wikipedia_dump", str(dump), str(folder), "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("language", ["ja", "zh", "pt"])
def test_the_siteinfo_names_the_language(tmp_path: Path, language: str) -> None:
    (tmp_path / "d.xml.bz2").write_bytes(bz2.compress(dump_of(["x"], language).encode()))
    assert find_dump_language(str(tmp_path / "d.xml.bz2")) == language
    assert script._flags_of_language(str(tmp_path / "d.xml.bz2")) == [f"--language={language}"]
    (tmp_path / "e.xml").write_text(dump_of(["x"], "").replace("enwiki", f"{language}wikibooks"))
    assert find_dump_language(str(tmp_path / "e.xml")) == language
    (tmp_path / "f.xml").write_text(dump_of(["x"], "tlh"))
    assert script._flags_of_language(str(tmp_path / "f.xml")) == []


@pytest.mark.parametrize("language", ["ja", "auto"])
def test_no_text_of_a_japanese_dump_is_lost(tmp_path: Path, language: str) -> None:
    texts = [f"{JAPANESE}{number}回目です。\n\n== 歴史 ==\n\n{JAPANESE} [[桜]]" for number in range(5)]
    (tmp_path / "d.xml").write_text(dump_of(texts))
    done = extract(tmp_path / "d.xml", tmp_path / "extracted")
    assert done.returncode == 0, done.stderr
    (tmp_path / "extracted" / ACCOUNT_FILE).unlink()
    settings = TextConfig(language=language, held_out="mlperf", num_held_out=1)
    with worker_processes(1) as alone:
        lines = make_text.make_text(str(tmp_path / "extracted"), str(tmp_path / "text"), settings, alone)
    report = json.loads((tmp_path / "text" / "text_report.json").read_text())
    assert report["kept"]["documents"] == report["read"]["documents"] == 5
    text = "".join(path.read_text() for path in tmp_path.glob("text/*/*.txt"))
    assert text.count("桜の花がとても綺麗でした。") == 10 and text.count("回目です。\n") == 5
    for unit in ("documents", "characters"):
        left_out = sum(amount[unit] for amount in report["left_out"].values())
        assert report["read"][unit] == report["kept"][unit] + left_out
    assert any(line.startswith("read: 5 documents") for line in lines)


def test_every_page_is_given_or_left_out_and_none_stalls_the_step(tmp_path: Path) -> None:
    hostile = ["<!--" * 20_000, "[http://a " * 20_000, "<math>" * 20_000, "<b " * 20_000, "{{" * 20_000, "[[" * 20_000]
    (tmp_path / "d.xml").write_text(dump_of(["An article. It is here.", *hostile]))
    done = extract(tmp_path / "d.xml", tmp_path / "extracted")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "extracted" / ACCOUNT_FILE).read_text())
    assert content["kept"]["documents"] == content["written_articles"] == 1 and content["read"]["documents"] == 7
    assert sum(amount["documents"] for amount in content["left_out"].values()) == len(content["notes"]) == 6
    assert sum(amount["characters"] for amount in content["left_out"].values()) == (
        content["read"]["characters"] - content["kept"]["characters"]
    )


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_a_dump_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    content = DUMP.read_bytes()
    content = bz2.compress(content)[:-20] if suffix.endswith("bz2") else content[:-20]
    (tmp_path / f"d{suffix}").write_bytes(content)
    done = extract(tmp_path / f"d{suffix}", tmp_path / "extracted")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/d{suffix}: ")
    assert not (tmp_path / "extracted" / ACCOUNT_FILE).exists()
