"""Any bert_config.json, text and vocabulary is taken, or refused by a ValueError of one line: no hang, nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pretrain.config.make_data import ExampleConfig, TextConfig
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.data import vocab
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.shards import build_shards
from bert_pretrain.make_data.text import make_text
from bert_pretrain.make_data.vocabulary import training
from bert_pretrain.system import worker_pool
from tests.config.test_model import GOOD
from tests.fuzz.examples import assert_is_one_line, fuzz

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.integers(2**31, 10**40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(max_size=12), VALUES, max_size=4)


def spliced(valid: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """Bytes with pieces put in the place of others."""
    content = bytearray(valid)
    for position, piece in changes:
        at = position % (len(content) + 1)
        content[at : at + len(piece) // 2] = piece
    return bytes(content)


SPLICES = st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=12)), min_size=1, max_size=4)
MODEL_FILES = st.one_of(
    CHANGES.map(lambda changes: json.dumps({**GOOD, **changes}).encode()),
    SPLICES.map(lambda changes: spliced(json.dumps(GOOD).encode(), changes)),
    st.binary(max_size=60),
    st.integers(1, 10**5).map(lambda depth: b'{"a":' * depth),
)


@fuzz()
@given(content=MODEL_FILES)
def test_any_bert_config(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bert_config.json"
    path.write_bytes(content)
    try:
        model = ModelConfig.from_json(str(path))
    except ValueError as error:
        assert_is_one_line(error)
        assert str(path) in str(error)
    else:
        assert model.hidden_size % model.num_attention_heads == 0


WORDS = [
    "the",
    "cat",
    "[MASK]",
    "naïve",
    "中",
    "İ",
    "ﬁ",
    ".",
    "?!",
    "a" * 250,
    "\u200b",
    "\u2028",
    "\x00",
    "\x1c",
    "😀",
]
TEXT = st.lists(
    st.sampled_from([*WORDS, " ", " ", "\n", "\n", "\n\n", "\r\n", "\t"]) | st.text(max_size=4), max_size=80
).map(lambda parts: "".join(parts).encode(errors="surrogatepass"))
TEXT_FILES = TEXT | TEXT | st.tuples(TEXT, SPLICES).map(lambda both: spliced(*both)) | st.binary(max_size=80)
LINES = st.lists(
    st.sampled_from([*vocab.SPECIAL_TOKENS, "", "##", "##a", "a", "the", "c", "##at", " cat "]) | st.text(max_size=5),
    max_size=30,
)
VOCABULARIES = st.tuples(st.booleans(), LINES).map(
    lambda both: "\n".join([*(vocab.SPECIAL_TOKENS if both[0] else []), *both[1]]).encode(errors="surrogatepass")
)
CONFIGS = st.builds(
    ExampleConfig,
    max_seq_length=st.integers(5, 40),
    max_predictions_per_seq=st.integers(1, 50),
    masked_lm_prob=st.floats(0, 1),
    short_seq_prob=st.floats(0, 1),
    dupe_factor=st.integers(1, 3),
    random_seed=st.integers(0, 2**70),
    do_lower_case=st.booleans(),
    do_whole_word_mask=st.booleans(),
    mode=st.sampled_from(["exact", "fast"]),
)


@contextlib.contextmanager
def one_line_errors():
    """Lets a ValueError of one line pass."""
    try:
        yield
    except ValueError as error:
        assert_is_one_line(error)


@fuzz()
@given(text=TEXT_FILES, vocabulary=VOCABULARIES | st.binary(max_size=40), config=CONFIGS, num_shards=st.integers(0, 3))
def test_any_text_and_vocabulary(
    tmp_path: Path, text: bytes, vocabulary: bytes, config: ExampleConfig, num_shards: int
) -> None:
    (tmp_path / "text").write_bytes(text)
    (tmp_path / "vocab.txt").write_bytes(vocabulary)
    for left in tmp_path.glob("shards/*"):
        left.unlink()
    build_shards._tokenizer.cache_clear()
    with one_line_errors():
        entries = vocab.load_vocabulary(str(tmp_path / "vocab.txt")).entries
        spans = corpus.find_text(f"{tmp_path}/text")
        directory, vocab_file = str(tmp_path / "shards"), str(tmp_path / "vocab.txt")
        tasks = build_shards.tasks_for_directory(spans, directory, num_shards, vocab_file, config)
        counts = [build_shards.make_shards(task, lambda progress: None) for task in tasks]
        assert entries and all(count.examples for count in counts)
        assert not build_shards.unfinished_tasks(tasks)


@fuzz()
@given(text=TEXT_FILES, size=st.integers(1, 300), lower_case=st.booleans())
def test_any_text_to_train_a_vocabulary(tmp_path: Path, text: bytes, size: int, lower_case: bool) -> None:
    (tmp_path / "text").write_bytes(text)
    with one_line_errors():
        spans = corpus.find_text(f"{tmp_path}/text")
        lines = [line for document in corpus.read_documents(spans) for line in document]
        vocabulary = training.train_vocabulary(lines, size, lower_case)
        vocab.write_vocabulary(str(tmp_path / "vocab.txt"), vocabulary)
        assert vocab.load_vocabulary(str(tmp_path / "vocab.txt")) == vocabulary


MARKUP = [
    "<doc id=1>",
    "</a",
    "((",
    ") (",
    "[[",
    "}}",
    "&#xD800;",
    "&amp",
    "formula_12",
    "'''",
    ". ",
    "Dr. ",
    "\n",
    "\n\n",
]
ARTICLES = st.lists(st.sampled_from([*MARKUP, *WORDS, " "]) | st.text(max_size=4), max_size=60).map("".join)
JSON_LINES = st.lists(
    ARTICLES.map(lambda text: json.dumps({"text": text}))
    | VALUES.map(lambda value: json.dumps({"text": value}))
    | VALUES.map(json.dumps)
    | st.sampled_from(["[" * 10**4, '{"text": "the \\ud800 cat sat there"}', '{"text": {"a": ' * 10**4]),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass"))
RAW_FILES = JSON_LINES | TEXT_FILES | ARTICLES.map(lambda text: text.encode(errors="surrogatepass"))


@pytest.mark.skipif(not importlib.util.find_spec("sentencex"), reason="needs sentencex")
@fuzz()
@given(
    content=RAW_FILES,
    suffix=st.sampled_from([".txt", ".rst", ".md", ".html", ".jsonl", ".parquet", ".txt.gz", ".md.zst"]),
    rule=st.sampled_from(["by_size", "mlperf"]),
    language=st.sampled_from(["en", "de", "zh", "hu"]),
)
def test_any_raw_text(tmp_path: Path, content: bytes, suffix: str, rule: str, language: str) -> None:
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    shutil.rmtree(tmp_path / "text", ignore_errors=True)
    (tmp_path / "raw").mkdir()
    for number in range(2):
        (tmp_path / "raw" / f"{number}{suffix}").write_bytes(content)
    settings = TextConfig(num_held_out=2, held_out=rule, language=language)
    with one_line_errors(), worker_pool.worker_processes(1) as alone:
        make_text.make_text(f"{tmp_path}/raw", str(tmp_path / "text"), settings, alone)
        assert len(make_text.make_text(f"{tmp_path}/raw", str(tmp_path / "text"), settings, alone)) == 1
