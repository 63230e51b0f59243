import pytest

from bert_pretrain.make_data import demo_text

SOURCE = '''"""A module about cats. It says what they do all day, e.g. sleeping in the sun.

    >>> cats()
    3

Names of parameters: {x: 1}

Cats do not bark at the moon.
"""
def f():
    """Return the number of all cats! Raises nothing at all."""
'''


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(SOURCE + "\n\n" + SOURCE.replace("cats", "dogs").replace("def f", "def g"))
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "none.py").write_text("x = 1")
    paths = [str(tmp_path / name) for name in ("a.py", "b.py", "bad.py", "none.py")]
    monkeypatch.setattr(demo_text, "_source_files", lambda: paths)


def test_prose_of_source_files_without_code_and_repetition(files, monkeypatch):
    monkeypatch.setattr(demo_text, "_language_reference", lambda: iter([]))
    documents = demo_text.demo_documents(num_processes=1)
    assert documents == [
        [
            "A module about cats.",
            "It says what they do all day, e.g. sleeping in the sun.",
            "Cats do not bark at the moon.",
            "Return the number of all cats!",
            "Raises nothing at all.",
        ]
    ]


def test_the_language_reference_is_text(files):
    documents = demo_text.demo_documents(num_processes=1)
    assert len(documents) > 40
    assert sum(len(document) for document in documents) > 1000
    assert all(len(document) >= 2 for document in documents)
    sentences = [sentence for document in documents for sentence in document]
    assert len(sentences) == len(set(sentences))
    assert not any(">>>" in sentence or "\n" in sentence for sentence in sentences)


def test_files_of_the_standard_library_are_found_in_order():
    paths = demo_text._source_files()
    assert paths == demo_text._source_files() and len(paths) > 500
    assert not any("/test/" in path for path in paths)
    assert any(path.endswith("/argparse.py") for path in paths)
