import numpy as np
import pytest

from bert_pretrain.data.vocab import Vocabulary
from bert_pretrain.make_data.shards import instances
from bert_pretrain.make_data.shards.instances import (
    Pairs,
    TokenizedText,
    assemble,
    tokenize_documents,
    tokenize_documents_in_blocks,
)
from bert_pretrain.make_data.text.account import Account
from bert_pretrain.make_data.tokenization import LineTokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")
DOCUMENTS = [["a b", "c"], ["\x00"], ["d d d", "\x00", "a"], ["b"]]


@pytest.fixture
def tokenizer():
    return LineTokenizer(Vocabulary(WORDS), True)


def test_sentences_and_documents_without_tokens_are_left_out(tokenizer):
    text = tokenize_documents(DOCUMENTS, tokenizer)
    assert text.ids.tolist() == [5, 6, 7, 8, 8, 8, 5, 6]
    assert text.ids.dtype == np.uint16
    assert text.sentence_starts.tolist() == [0, 2, 3, 6, 7, 8]
    assert text.document_starts.tolist() == [0, 2, 4, 5]
    assert text.num_documents == 3


def test_reading_by_pieces_changes_nothing(tokenizer, monkeypatch):
    expected = tokenize_documents(DOCUMENTS, tokenizer)
    monkeypatch.setattr(instances, "_CHARS_AT_ONCE", 1)
    for found, wanted in zip(tokenize_documents(DOCUMENTS, tokenizer), expected):
        assert found.tolist() == wanted.tolist()


def test_blocks_have_their_size_and_a_small_rest_joins_the_last(tokenizer, monkeypatch):
    monkeypatch.setattr(instances, "_CHARS_AT_ONCE", 1)
    blocks = list(tokenize_documents_in_blocks([["a a"]] * 7, tokenizer, max_tokens=6))
    assert [block.num_documents for block in blocks] == [3, 4]
    assert [len(block.ids) for block in blocks] == [6, 8]


def test_no_text_is_no_block_and_no_document(tokenizer):
    assert list(tokenize_documents_in_blocks([], tokenizer, max_tokens=6)) == []
    assert tokenize_documents([], tokenizer).num_documents == 0


def test_sequences_are_assembled():
    text = TokenizedText(np.arange(100, 109, dtype=np.int32), np.array([0, 3, 5, 9]), np.array([0, 3]))
    pairs = Pairs(np.array([0, 1]), np.array([3, 2]), np.array([5, 3]), np.array([7, 9]), np.array([True, False]))
    found = assemble(text, pairs, 10, 2, 3)
    assert found.ids.tolist() == [
        [2, 100, 101, 102, 3, 105, 106, 3, 0, 0],
        [2, 101, 3, 103, 104, 105, 106, 107, 108, 3],
    ]
    assert found.num_first.tolist() == [5, 3]
    assert found.num_tokens.tolist() == [8, 10]
    assert found.ids.dtype == np.int32


def test_a_single_sequence_has_no_second_segment():
    text = TokenizedText(np.arange(100, 109, dtype=np.int32), np.array([0, 3, 5, 9]), np.array([0, 3]))
    ends = np.array([3, 9])
    found = assemble(text, Pairs(np.array([0, 1]), ends, ends, ends, np.zeros(2, bool)), 10, 2, 3)
    assert found.ids.tolist() == [[2, 100, 101, 102, 3, 0, 0, 0, 0, 0], [2, *range(101, 109), 3]]
    assert found.num_first.tolist() == found.num_tokens.tolist() == [5, 10]
    assert found.choosable().sum(axis=1).tolist() == [3, 8]


def test_lines_without_a_token_are_counted(tokenizer):
    account = Account()
    documents = [["a b", "\ufffd\ufffd", "a"], ["\ufffd"], ["b"]]
    text = tokenize_documents(documents, tokenizer, account)
    assert account.check() is None and account.kept["documents"] == text.num_documents == 2
    assert account.read == {"documents": 3, "characters": 7}
    assert account.left_out == {"lines without a token": {"documents": 1, "characters": 3}}
    blocks = Account()
    list(tokenize_documents_in_blocks(documents, tokenizer, 2, blocks))
    assert blocks.as_json() == account.as_json()
