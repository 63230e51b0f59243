import random

import pytest

from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.corpus import Span, divide_text, read_documents, whole_file


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return whole_file(str(path))

    return write_file


def test_blank_lines_divide_documents_and_lines_are_stripped(write):
    span = write("a.txt", "\n\n one \r\ntwo\u2028too\n \t\n\n\x0bthree")
    assert list(read_documents([span])) == [["one", "two\u2028too"], ["three"]]


def test_a_file_ends_a_document_unless_google_reads(write):
    spans = [write("a.txt", "one\ntwo"), write("b.txt", "three\n\nfour\n")]
    assert list(read_documents(spans)) == [["one", "two"], ["three"], ["four"]]
    assert list(read_documents(spans, as_google=True)) == [["one", "two", "three"], ["four"]]


def test_carriage_returns_do_not_exist_for_google(write):
    assert list(read_documents([write("a.txt", "o\rne\r\n\r\r\n\rtwo")], as_google=True)) == [["one"], ["two"]]


def test_what_is_not_utf8_is_named_by_file_and_byte(write):
    span = write("a.txt", b"one\n\xc3\xa9t\xff\n")
    with pytest.raises(ValueError, match=r"a\.txt: byte 7 is not UTF-8"):
        list(read_documents([span]))


@pytest.mark.parametrize("content, message", [(None, "cannot be read"), (b"", "empty")])
def test_missing_and_empty_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        corpus.whole_file(str(path))


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
def test_parts_hold_each_document_once_and_whole(write, num_parts):
    documents = [[f"{name} document {number}", "of two lines"] for name in "ab" for number in range(20)]
    spans = [
        write(f"{number}.txt", "\n\n".join("\n".join(document) for document in documents[20 * number :][:20]))
        for number in range(2)
    ]
    parts = divide_text(spans, num_parts)
    found = [list(read_documents(part)) for part in parts]
    assert [document for part in found for document in part] == documents
    sizes = [sum(span.end - span.start for span in part) for part in parts]
    assert max(sizes) - min(sizes) < 100


def test_too_few_documents_for_the_parts_are_refused(write):
    with pytest.raises(ValueError, match="too few documents for 3 outputs"):
        divide_text([write("a.txt", "one\ntwo\n\nthree")], 3)


@pytest.mark.parametrize("random_seed", range(8))
def test_the_largest_number_of_parts_that_works_is_named(write, random_seed):
    rng = random.Random(random_seed)
    spans = [
        write(
            f"{name}.txt", "".join(rng.choice(["a\n", "a\n", "long line " * 5 + "\n", " \n"]) for _ in range(25)) + "b"
        )
        for name in "abc"
    ]

    def works(num_parts):
        try:
            return bool(divide_text(spans, num_parts))
        except ValueError:
            return False

    largest = max(number for number in range(1, 80) if works(number))
    with pytest.raises(ValueError, match=f"for 80 outputs; {largest} is the largest number that works"):
        divide_text(spans, 80)


def test_a_long_document_leaves_the_rest_to_one_part(write):
    long_one = "word " * 500
    parts = divide_text([write("a.txt", f"first\n\n{long_one}\n\nlast")], 2)
    assert [list(read_documents(part)) for part in parts] == [[["first"], [long_one.strip()]], [["last"]]]


def test_spans_are_read_from_their_first_to_their_last_byte(write):
    path = write("a.txt", "one\n\ntwo\n\nthree\n").path
    assert list(read_documents([Span(path, 5, 10)])) == [["two"]]


@pytest.mark.parametrize("start", ['{"id": 1, "text": "w1 w2"}', '\n<doc id="12">', "<mediawiki xmlns="])
def test_raw_forms_are_told_from_text(tmp_path, start):
    (tmp_path / "a.txt").write_text(start)
    with pytest.raises(ValueError, match="not one sentence a line; convert it with --make_text"):
        corpus.find_text(str(tmp_path / "*.txt"))


def test_a_folder_means_its_txt_files_and_a_name_that_exists_is_no_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("q[1]", "q1", "a,b"):
        (tmp_path / folder).mkdir()
        for name in ("2.txt", "1.txt", ".hidden.txt", "1.txt.json"):
            (tmp_path / folder / name).write_text("text\n")
    found = [[span.path for span in corpus.find_text(names)] for names in ("q[1]", "q[1]/1.txt,a,b", "q?/1.txt")]
    assert found == [["q[1]/1.txt", "q[1]/2.txt"], ["q[1]/1.txt", "a,b/1.txt", "a,b/2.txt"], ["q1/1.txt"]]
    (tmp_path / "empty").mkdir()
    for names in ("empty", "q*", "nothing", ","):
        with pytest.raises(ValueError, match="--input_file"):
            corpus.find_text(names)
