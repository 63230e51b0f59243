import importlib.util
import json
import random

import pytest

from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.raw_text import make_text
from bert_pretrain.make_data.raw_text.articles import read_articles
from bert_pretrain.make_data.raw_text.make_text import TextTask, choose_held_out
from bert_pretrain.make_data.raw_text.sentences import clean_paragraph, split
from tests.make_data import killed


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("It is  \u00a0far &amp; wide.", "It is far & wide."),
        ("The Foo ( ; , ) is (born 1920) a bar ().", "The Foo is (born 1920) a bar."),
        ("Let formula_1 be a set .", "Let be a set."),
        ("See <br /> '''bold''' [[link]] {{x}}", "See bold link x"),
        ("a < b and c > d", "a < b and c > d"),
    ],
)
def test_paragraphs_are_cleaned(raw, clean):
    assert clean_paragraph(raw) == clean


needs_sentencex = pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")


@needs_sentencex
def test_sentences_are_divided_and_headings_left_out():
    article = (
        "History.\n\nDr. Smith arrived in the U.S. in 1999. He left &ndash; soon after \u2013 for Rome!\nSee also.\n"
    )
    assert split(article, "en") == [
        "Dr. Smith arrived in the U.S. in 1999.",
        "He left \u2013 soon after \u2013 for Rome!",
    ]


def test_json_lines_and_plain_text_are_recognized(tmp_path):
    lines, plain = tmp_path / "wiki_00", tmp_path / "b.txt"
    lines.write_text("\n".join(["", json.dumps({"title": "A", "text": "one\ntwo"}), json.dumps({"text": "three"})]))
    plain.write_text("one\ntwo\n\n\nthree\n")
    assert list(read_articles(str(lines))) == list(read_articles(str(plain))) == ["one\ntwo", "three"]


@pytest.mark.parametrize("line", ['{"title": 1}', "[1]", '{"text": 3}', "{"])
def test_bad_json_is_named_by_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(ValueError, match=r"a\.jsonl: line 2 is not a JSON object"):
        list(read_articles(str(path)))


def test_held_out_articles_follow_the_published_rule():
    tasks = [TextTask("x", "", "", number, 3, 10, TextConfig()) for number in range(3)]
    chosen = [choose_held_out(task, 50) for task in tasks]
    assert [len(part) for part in chosen] == [3, 3, 4]
    rng = random.Random(12345 + 13 * 2)
    assert {int(rng.random() * 50) for _ in range(4)} == chosen[2]


def test_more_held_out_than_there_is_is_refused():
    with pytest.raises(ValueError, match="3 articles, and 5 of each file are to be held out; lower --num_held_out 5"):
        choose_held_out(TextTask("x", "", "", 0, 1, 5, TextConfig()), 3)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for name in ("AA/wiki_00", "AA/wiki_01", "AB/wiki_00"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"Article {number} of {name} stands here. It has two sentences." for number in range(6)]
        path.write_text("\n".join(json.dumps({"text": text}) for text in [*texts, ""]))
    (folder / "AA" / ".hidden").write_text("never")
    return folder


@needs_sentencex
def test_folders_become_text_with_a_share_held_out(raw, tmp_path):
    tasks = make_text.plan(str(raw), str(tmp_path / "text"), 4, TextConfig())
    counts = [make_text.make(task, lambda share: None) for task in tasks]
    assert counts == [(5, 1), (5, 1), (4, 2)]
    assert sorted(path.name for path in (tmp_path / "text" / "train").glob("*.txt")) == [
        "AA-wiki_00.txt",
        "AA-wiki_01.txt",
        "AB-wiki_00.txt",
    ]
    train, evaluation = (
        [
            tuple(document)
            for path in sorted((tmp_path / "text" / part).glob("*.txt"))
            for document in corpus.read_documents([corpus.whole(str(path))])
        ]
        for part in ("train", "eval")
    )
    assert len(train) == 14 and len(evaluation) == 4 and not set(train) & set(evaluation)
    assert all(len(document) == 2 for document in train)


@needs_sentencex
def test_finished_text_is_kept_and_other_text_is_not_overwritten(raw, tmp_path):
    tasks = make_text.plan(str(raw), str(tmp_path / "text"), 4, TextConfig())
    make_text.make(tasks[1], lambda share: None)
    assert make_text.unfinished(tasks) == [tasks[0], tasks[2]]
    with pytest.raises(ValueError, match=r"made from num_held_out 4 \(now 5\)"):
        make_text.unfinished(make_text.plan(str(raw), str(tmp_path / "text"), 5, TextConfig()))


@needs_sentencex
@pytest.mark.parametrize("num_renames", [1, 2, 3])  # the held-out text, the text for training, its side file
def test_a_killed_process_leaves_nothing_that_is_refused(raw, tmp_path, num_renames):
    tasks = make_text.plan(str(raw), str(tmp_path / "text"), 6, TextConfig())
    assert killed.run(make_text.make, tasks[0], num_renames)
    for task in make_text.unfinished(tasks):
        make_text.make(task, lambda share: None)
    assert not make_text.unfinished(tasks)
    assert len([path for path in (tmp_path / "text").rglob("*") if path.is_file()]) == 9  # none is hidden


@needs_sentencex
def test_files_of_one_name_are_refused(tmp_path):
    for name in ("a/b", "a-b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    with pytest.raises(ValueError, match=r"two files would become a-b\.txt"):
        make_text.plan(str(tmp_path), str(tmp_path / "text"), 0, TextConfig())
