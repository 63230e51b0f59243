"""The --make_text step: held-out documents, duplicates, and the same files however it is run."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus, task_progress
from bert_pretrain.make_data.text import make_text, parts, reading
from bert_pretrain.make_data.text.account import count_characters
from bert_pretrain.system.worker_pool import worker_processes
from tests.make_data import killed

ROOT = Path(__file__).parents[3]
WORDS = [first + second for first in ("ba", "ko", "li", "mu", "ne", "sa") for second in ("r", "l", "n", "s", "t", "nd")]

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sentencex", "datasketch")),
    reason="needs sentencex and datasketch",
)


def sentences(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=9)).capitalize() + "." for _ in range(count)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = random.Random(0)
    texts = [sentences(rng, rng.randrange(12, 40)) for _ in range(40)]
    texts[7] = texts[3]  # equal
    texts[9] = [*texts[4][:-1], "Another end has been written for it."]  # nearly equal
    texts += [sentences(rng, 3) for _ in range(20)]  # short
    for number, text in enumerate(texts):
        path = tmp_path / "raw" / f"{number % 3}" / f"{number:02d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join([" ".join(text[:3]), " ".join(text[3:])]))
    return tmp_path / "raw"


def make(raw: Path, output: Path, **settings: object) -> list[str]:
    with worker_processes(1) as alone:
        return make_text.make_text(str(raw), str(output), TextConfig(**settings), alone)


def documents(folder: Path) -> list[list[str]]:
    spans = [corpus.whole_file(str(path)) for path in sorted(folder.glob("*.txt"))]
    return list(corpus.read_documents(spans))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_training_and_held_out_text_without_duplicates(raw: Path, tmp_path: Path) -> None:
    lines = make(raw, tmp_path / "text")
    report = json.loads((tmp_path / "text" / "text_report.json").read_text())
    assert report["equal_duplicates"] == report["near_duplicates"] == 1 and report["left_out_documents"] == 2
    assert any("duplicates: 1 equal, 1 nearly equal, listed in duplicates.tsv; 2 documents" in line for line in lines)
    rows = [line.split("\t") for line in (tmp_path / "text" / "duplicates.tsv").read_text().splitlines()[1:]]
    assert [f"{raw}/1/07.txt:1", f"{raw}/0/03.txt:1", "1.00"] in rows
    assert {f"{raw}/1/04.txt:1", f"{raw}/0/09.txt:1"} in map(set, (row[:2] for row in rows)) and len(rows) == 2
    train, evaluation = (documents(tmp_path / "text" / part) for part in ("train", "eval"))
    assert (report["found_documents"], report["left_out_documents"]) == (60, 2)
    for part, found in (("train", train), ("eval", evaluation)):
        assert report[f"{part}_documents"] == len(found)
        assert report[f"{part}_sentences"] == sum(map(len, found))
    texts = [sentence for document in train + evaluation for sentence in document]
    assert len(texts) == len(set(texts))
    # The short files of a folder, of three sentences each, became documents of a length that fills a sequence.
    assert all(sum(sentence.count(" ") + 1 for sentence in document) >= 100 for document in train)
    assert report["eval_bytes"] <= report["train_bytes"] / 9
    before = contents(tmp_path / "text")
    assert make(raw, tmp_path / "text") == [f"{tmp_path}/text: the text is there"]
    next((tmp_path / "text" / "train").glob("*.txt")).unlink()
    make(raw, tmp_path / "text")
    assert contents(tmp_path / "text") == before
    with pytest.raises(ValueError, match=r"made from num_held_out 10000 \(now 7\)"):
        make(raw, tmp_path / "text", num_held_out=7)


def test_all_text_is_in_the_files_or_left_out_for_a_reason(raw: Path, tmp_path: Path) -> None:
    (raw / "a.jsonl").write_text("\n".join(['{"text": null}', "{", json.dumps({"text": "One is here. Two is there."})]))
    (raw / "0" / "short.txt").write_text("Alone.")
    lines = make(raw, tmp_path / "text")
    report = json.loads((tmp_path / "text" / "text_report.json").read_text())
    assert {reason for reason, amount in report["left_out"].items() if amount["documents"]} == {
        "documents of less than two sentences", "duplicates", "records: is not JSON", 'records: has null as "text"',
    }  # fmt: skip
    for unit in ("documents", "characters"):
        left_out = sum(amount[unit] for amount in report["left_out"].values())
        assert report["read"][unit] == report["kept"][unit] + left_out > left_out
    written = [
        sentence for part in ("train", "eval") for text in documents(tmp_path / "text" / part) for sentence in text
    ]
    assert report["kept"]["characters"] == sum(map(count_characters, written))
    (summary,) = [line for line in lines if line.startswith("read: ")]
    assert all(f"{report[part]['characters']:,} characters" in summary for part in ("read", "kept"))


@pytest.mark.parametrize("num_good", [0, 1])
def test_records_that_are_all_bad_are_refused_in_pieces_too(tmp_path: Path, num_good: int) -> None:
    (tmp_path / "raw").mkdir()
    lines = [json.dumps({"body": "x" * 1000}) for _ in range(2500)]
    lines[:num_good] = [json.dumps({"text": "One is here. Two is there."})] * num_good
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "raw" / "b.txt").write_text("One is here.\nTwo is there.")
    if num_good:
        make(tmp_path / "raw", tmp_path / "text")
        report = json.loads((tmp_path / "text" / "text_report.json").read_text())
        assert report["left_out"]['records: has no "text"']["documents"] == 2499
    else:
        with pytest.raises(ValueError, match=r"a\.jsonl: none of 2500 records .*--text_column"):
            make(tmp_path / "raw", tmp_path / "text")


def test_what_repeats_a_held_out_document_never_trains(raw: Path, tmp_path: Path) -> None:
    make(raw, tmp_path / "text", keep_duplicates=True, num_held_out=60)
    report = json.loads((tmp_path / "text" / "text_report.json").read_text())
    held = {sentence for document in documents(tmp_path / "text" / "eval") for sentence in document}
    assert not held & {sentence for document in documents(tmp_path / "text" / "train") for sentence in document}
    assert report["left_out_documents"] == report["near_held_out_documents"]


def test_a_language_without_rules_of_its_own_is_told(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(raw, tmp_path / "text", language="hu")
    assert "--language=hu: sentencex has no rules for it, those of sk are used\n" in capsys.readouterr().err
    assert json.loads((tmp_path / "text" / "text_report.json").read_text())["sentence_rules"] == "sk"


def test_the_bar_counts_documents(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(task_progress, "_LOG_SECONDS", -1)
    monkeypatch.setattr(parts, "_BYTES_BETWEEN_REPORTS", 1000)
    make(raw, tmp_path / "text")
    report = json.loads((tmp_path / "text" / "text_report.json").read_text())
    lines = capsys.readouterr().err
    assert "<00:00, " in lines and f"1 of 1 done, {report['found_documents']} documents found]" in lines
    assert f"1 of 1 done, {report['train_documents'] + report['eval_documents']} documents written]" in lines


def command(raw: Path, output: Path, processes: int) -> list[str]:
    flags = [f"--input_file={raw}", f"--output_dir={output}", f"--num_processes={processes}", "--language=de"]
    return [sys.executable, "-m", "bert_pretrain.make_data", "--make_text", *flags]


@pytest.mark.slow
def test_the_files_do_not_depend_on_processes_or_interruptions(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):  # more than a megabyte, so that there are several parts
        rng = random.Random(number)
        (raw / f"long{number}.txt").write_text("\n\n".join(" ".join(sentences(rng, 20)) for _ in range(400)))
    # Cut into pieces: one with a document that is there twice, in different pieces, one in an encoding of its own.
    texts = [" ".join(sentences(rng, 20)) for _ in range(1900)]
    texts[1800] = texts[10]
    (raw / "large.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    documents = ["\n".join([*sentences(rng, 20), "Größe."]) for _ in range(1900)]
    (raw / "large.txt").write_bytes("\n\n".join(documents).encode("latin-1"))
    for processes in (1, 3):
        subprocess.run(command(raw, tmp_path / f"{processes}", processes), check=True, capture_output=True, cwd=ROOT)
    whole = contents(tmp_path / "1")
    assert sum(name.startswith("train/") for name in whole) > 5
    assert whole == contents(tmp_path / "3")
    assert f"{raw}/large.jsonl:1801\t{raw}/large.jsonl:11\t1.00\n" in whole["duplicates.tsv"].decode()
    assert json.loads(whole["text_report.json"])["found_besides"]["files in cp1252"] == 1
    rng = random.Random(1)
    for _ in range(4):
        started = subprocess.Popen(
            command(raw, tmp_path / "killed", 2), cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.3, 2.5))
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    subprocess.run(command(raw, tmp_path / "killed", 2), check=True, capture_output=True, cwd=ROOT)
    assert contents(tmp_path / "killed") == whole


@pytest.mark.parametrize("num_renames", [1, 2, 3])  # what documents are compared by, the side file, the documents
def test_a_killed_part_is_found_again(raw: Path, tmp_path: Path, num_renames: int) -> None:
    planned = parts.plan_parts(reading.find_sources(str(raw))[0], str(tmp_path / "text"), TextConfig())
    assert killed.run(parts.find_documents, planned[0], num_renames)
    make(raw, tmp_path / "text")
    make(raw, tmp_path / "other")
    assert contents(tmp_path / "text") == contents(tmp_path / "other")


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    for name in ("AA/wiki_00", "AA/wiki_01", "AB/wiki_00"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"Article {number} of {name} stands here. It has two sentences." for number in range(6)]
        path.write_text("\n".join(json.dumps({"text": text}) for text in [*texts, ""]))
    (folder / "AA" / ".hidden").write_text("never")
    return folder


def test_mlperfs_rule_holds_out_as_many_of_each_file(articles: Path, tmp_path: Path) -> None:
    make(articles, tmp_path / "text", held_out="mlperf", num_held_out=4)
    names = ["AA-wiki_00.txt", "AA-wiki_01.txt", "AB-wiki_00.txt"]
    for folder, sizes in (("train", [5, 5, 4]), ("eval", [1, 1, 2])):
        files = sorted((tmp_path / "text" / folder).glob("*.txt"))
        assert [path.name for path in files] == names
        assert [len(list(corpus.read_documents([corpus.whole_file(str(path))]))) for path in files] == sizes


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/b", "a-b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    found = reading.find_sources(str(tmp_path))[0]
    with pytest.raises(ValueError, match=r"two files would become a-b\.txt"):
        parts.plan_parts(found, str(tmp_path / "text"), TextConfig(held_out="mlperf"))


def test_a_single_document_gives_its_last_tenth(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    text = sentences(random.Random(3), 30)
    (tmp_path / "raw" / "a.txt").write_text(" ".join(text))
    make(tmp_path / "raw", tmp_path / "text")
    assert documents(tmp_path / "text" / "train") == [text[:27]]
    assert documents(tmp_path / "text" / "eval") == [text[27:]]


def test_a_folder_named_documents_is_not_emptied(raw: Path, tmp_path: Path) -> None:
    mine = tmp_path / "text" / "documents" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    make(raw, tmp_path / "text")
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def test_mlperfs_text_is_divided_as_it_has_always_been(tmp_path: Path) -> None:
    lines = [
        "They counted on. 1, 2. It\u2028stopped there.",
        "今日は天気がいいです。",
        "See also.",
        "One\x0cmore line is here.",
    ]
    raw = tmp_path / "wiki_00"
    raw.write_text("\n".join(json.dumps({"text": text}) for text in ["\n".join(lines), "And this is the other one."]))
    make(raw, tmp_path / "text", held_out="mlperf", num_held_out=0)
    first = ["They counted on.", "1, 2.", "It stopped there.", "One more line is here."]
    assert documents(tmp_path / "text" / "train") == [first, ["And this is the other one."]]
